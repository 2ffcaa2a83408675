# Refuses a CUDA toolkit that is too old before CMake tries to compile with it, which would fail
# with pages of errors. CUDA 12.8 brought PTX 8.6, whose fence.release.sync_restrict the kernels for
# compute capability 9.0 use, and machine code for the compute capabilities 10.0 and 12.0.
set(compiler "${CMAKE_CUDA_COMPILER}")
if(NOT compiler)
  set(compiler "$ENV{CUDACXX}")
endif()
if(NOT compiler)
  unset(compiler)
  find_program(compiler nvcc NO_CACHE)
endif()
if(compiler)
  execute_process(COMMAND "${compiler}" --version OUTPUT_VARIABLE version ERROR_QUIET)
  if(version MATCHES "release ([0-9]+\\.[0-9]+)" AND CMAKE_MATCH_1 VERSION_LESS 12.8)
    message(FATAL_ERROR "${compiler} is of CUDA ${CMAKE_MATCH_1}, expected 12.8 or newer "
      "(-DXLATE_CUDA=OFF builds for the CPU alone)")
  endif()
endif()
