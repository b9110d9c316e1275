# Finds the headers of Boost; Asio and Beast need no library of it.
#
# Looks in -DBoostHeaders_DIR= (the folder that holds boost/), then where scripts/setup.sh unpacks Debian's package, .deps/boost,
# then where the system's headers are. Defines
#   BoostHeaders::beast    Asio and Beast with OpenSSL, for their use with C++20 coroutines
#   BoostHeaders_VERSION
find_path(BoostHeaders_INCLUDE_DIR boost/beast/version.hpp
  HINTS "${BoostHeaders_DIR}" "${PROJECT_SOURCE_DIR}/.deps/boost/usr/include" NO_DEFAULT_PATH)
find_path(BoostHeaders_INCLUDE_DIR boost/beast/version.hpp)
if(BoostHeaders_INCLUDE_DIR)
  file(STRINGS "${BoostHeaders_INCLUDE_DIR}/boost/version.hpp" _version REGEX "define BOOST_LIB_VERSION")
  string(REGEX MATCH "[0-9]+_[0-9]+" _version "${_version}")
  string(REPLACE "_" "." BoostHeaders_VERSION "${_version}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(BoostHeaders
  REQUIRED_VARS BoostHeaders_INCLUDE_DIR
  VERSION_VAR BoostHeaders_VERSION
  REASON_FAILURE_MESSAGE "run scripts/setup.sh, or pass -DBoostHeaders_DIR= of Boost 1.81 or newer")

if(BoostHeaders_FOUND AND NOT TARGET BoostHeaders::beast)
  add_library(BoostHeaders::beast INTERFACE IMPORTED)
  target_include_directories(BoostHeaders::beast SYSTEM INTERFACE "${BoostHeaders_INCLUDE_DIR}")
  target_compile_definitions(BoostHeaders::beast INTERFACE
    BOOST_ASIO_NO_DEPRECATED BOOST_ASIO_DISABLE_BOOST_COROUTINE BOOST_ERROR_CODE_HEADER_ONLY)
  if(NANOCHAT_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Where a sanitizer keeps calls from being inlined, g++ 12 takes the memory of Asio's coroutine frames for that of another
    # allocator.
    target_compile_options(BoostHeaders::beast INTERFACE -Wno-mismatched-new-delete)
  endif()
  if(NANOCHAT_SANITIZE MATCHES "thread")
    # ThreadSanitizer does not see fences, and says so; Asio's orders come from its locks, which it does see.
    target_compile_definitions(BoostHeaders::beast INTERFACE BOOST_ASIO_DISABLE_FENCED_BLOCK)
  endif()
  target_link_libraries(BoostHeaders::beast INTERFACE OpenSSL::SSL OpenSSL::Crypto Threads::Threads)
endif()
mark_as_advanced(BoostHeaders_INCLUDE_DIR)
