# CPack runs this script when the files of the Debian package are laid out. It puts them into the
# form that Debian asks for: a licence in copyright, and the manual page and the list of changes
# packed.
set(root ${CPACK_TEMPORARY_INSTALL_DIRECTORY})
set(doc ${root}/usr/share/doc/xlate)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${root}/usr/lib/xlate)

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
# Libraries are no programs. The umask of whoever builds does not matter.
file(GLOB libraries ${root}/usr/lib/xlate/*)
file(CHMOD ${libraries} PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
