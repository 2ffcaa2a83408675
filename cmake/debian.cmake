# Defines the package that `cpack -G DEB` makes in the folder of a finished build. It has the
# libraries of cmake/install.cmake in it and depends on the C and C++ libraries alone, so that a
# package built on Debian 12 can be installed on Ubuntu 24.04 as well.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME xlate)
set(CPACK_PACKAGE_CONTACT "xlate developers <xlate@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY
  "translate and generate text in bulk with Transformer models")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
"xlate reads lines of text and writes one line for each, in the same order:
its translation, or the text that a model without an encoder generates
behind it. It runs on one NVIDIA GPU, if it was built with the CUDA toolkit,
or on the CPU.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION text)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
# The program opens this library when it needs it, and says so if it does not find it.
if(XLATE_CUDA)
  set(CPACK_DEBIAN_PACKAGE_SUGGESTS
    "libcublas-${CUDAToolkit_VERSION_MAJOR}-${CUDAToolkit_VERSION_MINOR}")
endif()
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_LIST_DIR}/debian_files.cmake)
set(CPACK_XLATE_FILES ${CMAKE_CURRENT_LIST_DIR}/debian)
string(TIMESTAMP CPACK_XLATE_DATE "%a, %d %b %Y %H:%M:%S +0000" UTC)
include(CPack)
