# Defines the fuzz tests of the code that reads model files. The fuzz target needs libFuzzer, which
# comes with clang, and all code must be instrumented. It therefore has a build of its own
# (XLATE_FUZZ), which the long test fuzz_model_file makes and runs. The test fuzz_replay belongs to
# every other build: it replays the corpus, unchanged and with some mutations.
set(fuzz_corpus ${CMAKE_SOURCE_DIR}/tests/data/fuzz/model_file)
set(XLATE_FUZZ_SECONDS 600 CACHE STRING "How long the long test fuzzes")

if(XLATE_FUZZ)
  add_executable(fuzz_model_file fuzz_model_file.cpp)
  target_link_options(fuzz_model_file PRIVATE -fsanitize=fuzzer)
  target_link_libraries(fuzz_model_file PRIVATE models)
  return()
endif()

add_executable(fuzz_replay fuzz_model_file.cpp fuzz_replay.cpp)
target_link_libraries(fuzz_replay PRIVATE models)
add_test(NAME fuzz_replay COMMAND fuzz_replay ${fuzz_corpus})
set_tests_properties(fuzz_replay PROPERTIES TIMEOUT 600)

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
set(found ${CMAKE_BINARY_DIR}/fuzz/found)
file(MAKE_DIRECTORY ${found})
add_test(NAME fuzz_model_file COMMAND ${CMAKE_CTEST_COMMAND}
  --build-and-test ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/fuzz/build
  --build-generator ${CMAKE_GENERATOR} --build-target fuzz_model_file
  --build-options -DCMAKE_CXX_COMPILER=${XLATE_CLANG} -DCMAKE_BUILD_TYPE=RelWithDebInfo
    -DXLATE_FUZZ=ON -DXLATE_SANITIZE=ON -DXLATE_CUDA=OFF
  --test-command bin/fuzz_model_file -max_total_time=${XLATE_FUZZ_SECONDS} -max_len=32768
    -timeout=20 -print_final_stats=1
    -artifact_prefix=${CMAKE_BINARY_DIR}/fuzz/ ${found} ${fuzz_corpus})
math(EXPR timeout "${XLATE_FUZZ_SECONDS} + 1800")
set_tests_properties(fuzz_model_file PROPERTIES LABELS long TIMEOUT ${timeout})
