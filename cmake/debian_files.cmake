# CPack runs this script when the files of the Debian package are laid out. It puts them into the
# form that Debian asks for: a licence in copyright, and the manual page and the list of changes
# packed.
set(root ${CPACK_TEMPORARY_INSTALL_DIRECTORY})
set(doc ${root}/usr/share/doc/xlate)

# Debian has the text of the licence itself, which copyright names.
file(REMOVE ${doc}/LICENSE)
configure_file(${CPACK_XLATE_FILES}/copyright ${doc}/copyright COPYONLY)
configure_file(${CPACK_XLATE_FILES}/lintian-overrides ${root}/usr/share/lintian/overrides/xlate
  COPYONLY)
# zsh looks for the completions of packages in another folder than for those of the machine.
file(MAKE_DIRECTORY ${root}/usr/share/zsh/vendor-completions)
file(RENAME ${root}/usr/share/zsh/site-functions/_xlate
  ${root}/usr/share/zsh/vendor-completions/_xlate)
file(REMOVE_RECURSE ${root}/usr/share/zsh/site-functions)

configure_file(${CPACK_XLATE_FILES}/changelog ${doc}/changelog @ONLY)
execute_process(COMMAND gzip --best --no-name --force ${doc}/changelog
  ${root}/usr/share/man/man1/xlate.1 COMMAND_ERROR_IS_FATAL ANY)
# The versions of the C and C++ libraries come from the symbols that the files use. CPack's own
# dependencies would have the packages of the libraries that lie in this one.
file(GLOB binaries ${root}/usr/bin/* ${root}/usr/lib/xlate/*)
file(WRITE ${CPACK_TEMPORARY_DIRECTORY}/debian/control
  "Source: xlate\n\nPackage: xlate\nArchitecture: any\n")
execute_process(COMMAND dpkg-shlibdeps --ignore-missing-info -O ${binaries}
  WORKING_DIRECTORY ${CPACK_TEMPORARY_DIRECTORY} OUTPUT_VARIABLE depends ERROR_QUIET
  COMMAND_ERROR_IS_FATAL ANY)
file(REMOVE_RECURSE ${CPACK_TEMPORARY_DIRECTORY}/debian)
string(REGEX MATCHALL "(libc6|libgcc-s1|libstdc\\+\\+6)( \\([^)]*\\))?" depends "${depends}")
string(REPLACE ";" ", " CPACK_DEBIAN_PACKAGE_DEPENDS "${depends}")

# Libraries are no programs. The umask of whoever builds does not matter.
file(GLOB libraries ${root}/usr/lib/xlate/*)
file(CHMOD ${libraries} PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
