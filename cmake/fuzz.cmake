# Defines the fuzz tests of the code that reads model files (fuzz_model_file) and text (fuzz_text).
# The fuzz targets need libFuzzer, which comes with clang, and all code must be instrumented. They
# therefore have a build of their own (XLATE_FUZZ), which the long tests of the same names make and
# run. The tests fuzz_replay and fuzz_text_replay belong to every other build: they replay the
# corpora, unchanged and with some mutations.
set(fuzz_corpora ${CMAKE_SOURCE_DIR}/tests/data/fuzz)
set(XLATE_FUZZ_SECONDS 600 CACHE STRING "How long the long test fuzzes")

if(XLATE_FUZZ)
  foreach(target fuzz_model_file fuzz_text)
    add_executable(${target} ${target}.cpp)
    target_link_options(${target} PRIVATE -fsanitize=fuzzer)
    target_link_libraries(${target} PRIVATE models)
  endforeach()
  target_compile_definitions(fuzz_text PRIVATE XLATE_FUZZ_MODELS="${fuzz_corpora}/model_file")
  return()
endif()

add_executable(fuzz_replay fuzz_model_file.cpp fuzz_replay.cpp)
add_executable(fuzz_text_replay fuzz_text.cpp fuzz_replay.cpp)
target_compile_definitions(fuzz_text_replay PRIVATE XLATE_FUZZ_MODELS="${fuzz_corpora}/model_file")
# The corpus of model files has some hundred files, so that this makes 10^5 runs.
set(mutations 1000)
foreach(pair fuzz_replay:model_file fuzz_text_replay:text)
  string(REPLACE ":" ";" pair ${pair})
  list(GET pair 0 target)
  list(GET pair 1 corpus)
  target_link_libraries(${target} PRIVATE models)
  add_test(NAME ${target} COMMAND ${target} ${mutations} ${fuzz_corpora}/${corpus})
  set_tests_properties(${target} PROPERTIES TIMEOUT 600)
endforeach()

# Debian's clang comes without the library of libFuzzer, so linking a fuzz target is tried.
find_program(XLATE_CLANG clang++)
if(XLATE_CLANG AND NOT DEFINED XLATE_HAS_LIBFUZZER)
  file(WRITE ${CMAKE_BINARY_DIR}/fuzz/probe.cpp
    "extern \"C\" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }\n")
  execute_process(
    COMMAND ${XLATE_CLANG} -fsanitize=fuzzer,address,undefined probe.cpp -o probe
    WORKING_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz
    RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
  if(NOT failed)
    set(XLATE_HAS_LIBFUZZER ON CACHE INTERNAL "clang++ builds fuzz targets")
  endif()
endif()
if(NOT XLATE_HAS_LIBFUZZER)
  message(STATUS "no clang++ with libFuzzer: no fuzzing, the corpus is replayed only "
    "(Debian's packages: clang, libclang-rt-14-dev)")
  return()
endif()
# libFuzzer reads both folders and writes new inputs to the first one, so that the corpus stays as
# it is. An input that makes the target fail is left in fuzz/.
foreach(target fuzz_model_file fuzz_text)
  string(REPLACE fuzz_ "" corpus ${target})
  set(length 32768)
  if(target STREQUAL fuzz_text)
    set(length 1024)
  endif()
  set(found ${CMAKE_BINARY_DIR}/fuzz/found_${corpus})
  file(MAKE_DIRECTORY ${found})
  add_test(NAME ${target} COMMAND ${CMAKE_CTEST_COMMAND}
    --build-and-test ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/fuzz/build
    --build-generator ${CMAKE_GENERATOR} --build-target ${target}
    --build-options -DCMAKE_CXX_COMPILER=${XLATE_CLANG} -DCMAKE_BUILD_TYPE=RelWithDebInfo
      -DXLATE_FUZZ=ON -DXLATE_SANITIZE=ON -DXLATE_CUDA=OFF
    --test-command bin/${target} -max_total_time=${XLATE_FUZZ_SECONDS} -max_len=${length}
      -timeout=20 -malloc_limit_mb=64 -print_final_stats=1
      -artifact_prefix=${CMAKE_BINARY_DIR}/fuzz/ ${found} ${fuzz_corpora}/${corpus})
  math(EXPR timeout "${XLATE_FUZZ_SECONDS} + 1800")
  # They share a build folder.
  set_tests_properties(${target} PROPERTIES LABELS long TIMEOUT ${timeout}
    RESOURCE_LOCK fuzz_build)
endforeach()
