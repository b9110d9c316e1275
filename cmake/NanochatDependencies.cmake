# Third-party packages. scripts/setup.sh installs them; each is a SYSTEM import, so our warnings do not reach its headers.
find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(CURL 7.85 REQUIRED)
find_package(OpenSSL 3.0 REQUIRED)
find_package(BoostHeaders 1.81 REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(CLI11 2.1 REQUIRED)
find_package(spdlog 1.10 REQUIRED)
find_package(LibTorch REQUIRED)
# Headers alone; the library itself is in LibTorch. Without them a program that runs as several processes says that it
# cannot (libs/distributed/gloo_none.cpp).
find_path(Gloo_INCLUDE_DIR gloo/context.h)
mark_as_advanced(Gloo_INCLUDE_DIR)
if(NOT Gloo_INCLUDE_DIR)
  message(STATUS "Gloo: no headers (libgloo-dev), so training with several processes is left out")
endif()
find_package(PkgConfig REQUIRED)
pkg_check_modules(sentencepiece REQUIRED IMPORTED_TARGET sentencepiece)
pkg_check_modules(pcre2 REQUIRED IMPORTED_TARGET libpcre2-8)
# Debian's package has no CMake files; the archive is preferred, so that the program needs no further shared library.
find_path(UTF8PROC_INCLUDE_DIR utf8proc.h REQUIRED)
find_library(UTF8PROC_LIBRARY NAMES libutf8proc.a utf8proc REQUIRED)
add_library(utf8proc::utf8proc UNKNOWN IMPORTED)
set_target_properties(utf8proc::utf8proc PROPERTIES
  IMPORTED_LOCATION "${UTF8PROC_LIBRARY}"
  INTERFACE_INCLUDE_DIRECTORIES "${UTF8PROC_INCLUDE_DIR}")

if(NANOCHAT_TESTS)
  find_package(GTest REQUIRED)
  find_path(RAPIDCHECK_INCLUDE_DIR rapidcheck.h REQUIRED)
  find_library(RAPIDCHECK_LIBRARY rapidcheck REQUIRED)
  add_library(rapidcheck::rapidcheck UNKNOWN IMPORTED)
  set_target_properties(rapidcheck::rapidcheck PROPERTIES
    IMPORTED_LOCATION "${RAPIDCHECK_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${RAPIDCHECK_INCLUDE_DIR}")
endif()
if(NANOCHAT_BENCHMARKS)
  find_package(benchmark REQUIRED)
endif()
