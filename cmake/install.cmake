# Defines what `cmake --install build --prefix DIR` installs: the program in bin/, the libraries
# that a plain Debian or Ubuntu may lack in lib/, and the licences, README.md and the example model
# in share/, with the manual page and the completions for shells. The C++ standard library is not copied. SentencePiece's shared library needs the
# system's in any case, and that of a newer system serves an older build.
install(TARGETS xlate RUNTIME DESTINATION bin)
install(CODE "set(xlate_program \"$<TARGET_FILE:xlate>\")")
install(CODE [[
  file(GET_RUNTIME_DEPENDENCIES EXECUTABLES "${xlate_program}" RESOLVED_DEPENDENCIES_VAR found
       PRE_INCLUDE_REGEXES "sentencepiece" "protobuf" "absl" "pcre2" "utf8proc" "libicu" "libz\\."
       PRE_EXCLUDE_REGEXES ".*")
  foreach(library IN LISTS found)
    get_filename_component(name "${library}" NAME)
    file(REAL_PATH "${library}" file)
    file(COPY "${file}" DESTINATION "${CMAKE_INSTALL_PREFIX}/lib")
    get_filename_component(file_name "${file}" NAME)
    if(NOT file_name STREQUAL name)
      file(RENAME "${CMAKE_INSTALL_PREFIX}/lib/${file_name}" "${CMAKE_INSTALL_PREFIX}/lib/${name}")
    endif()
  endforeach()
]])
install(DIRECTORY ${XLATE_SHARE}/ DESTINATION share)
install(FILES LICENSE README.md DESTINATION share/doc/xlate)
install(FILES data/en-de.bin data/LICENSE.md DESTINATION share/xlate)
