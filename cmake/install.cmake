# Defines what `cmake --install build --prefix DIR` installs: the program in bin/, the libraries
# that a plain Debian or Ubuntu may lack in lib/xlate/, and in share/ the manual page, the
# completions for shells, the licences, README.md and the example model with its input. The C++
# standard library is not copied. SentencePiece's shared library needs the system's in any case, and
# that of a newer system serves an older build.
install(TARGETS xlate RUNTIME DESTINATION bin)
install(TARGETS xlate_onednn LIBRARY DESTINATION lib/xlate)
install(CODE "set(xlate_program \"$<TARGET_FILE:xlate>\")")
install(CODE "set(xlate_module \"$<TARGET_FILE:xlate_onednn>\")")
install(CODE [[
  # DESTDIR is for packages, which are laid out in another place than they are installed in.
  set(prefix "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}")
  file(GET_RUNTIME_DEPENDENCIES EXECUTABLES "${xlate_program}" MODULES "${xlate_module}"
       RESOLVED_DEPENDENCIES_VAR found
       PRE_INCLUDE_REGEXES "libdnnl" "libgomp" "libOpenCL" "sentencepiece" "protobuf" "absl" "pcre2"
         "utf8proc" "libicu" "libz\\."
       PRE_EXCLUDE_REGEXES ".*")
  # The code of these is compiled into the program.
  set(packages libcli11-dev libfmt-dev nlohmann-json3-dev libxxhash-dev)
  foreach(library IN LISTS found)
    get_filename_component(name "${library}" NAME)
    file(REAL_PATH "${library}" file)
    configure_file("${file}" "${prefix}/lib/xlate/${name}" COPYONLY)
    # A package may know the file by its path without /usr.
    string(REGEX REPLACE "^/usr" "" short "${file}")
    foreach(path "${file}" "${short}")
      execute_process(COMMAND dpkg-query --search "${path}" OUTPUT_VARIABLE owner ERROR_QUIET)
      string(REGEX REPLACE "[:,].*" "" owner "${owner}")
      list(APPEND packages ${owner})
    endforeach()
  endforeach()
  # The licences of these libraries ask that they go with each copy.
  list(REMOVE_DUPLICATES packages)
  foreach(package IN LISTS packages)
    if(EXISTS "/usr/share/doc/${package}/copyright")
      configure_file("/usr/share/doc/${package}/copyright"
        "${prefix}/share/doc/xlate/libraries/${package}" COPYONLY)
    endif()
  endforeach()
]])
install(DIRECTORY ${XLATE_SHARE}/ DESTINATION share)
install(FILES LICENSE README.md DESTINATION share/doc/xlate)
install(FILES data/en-de.bin data/sample.en data/LICENSE.md DESTINATION share/xlate)
