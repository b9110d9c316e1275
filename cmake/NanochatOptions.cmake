# Flags of this project's own targets, as INTERFACE targets: nothing global, so that third-party code never sees them.
find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # ccache's manual, "Precompiled headers": without this it keeps no file that uses one.
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env "CCACHE_SLOPPINESS=pch_defines,time_macros" "${CCACHE_PROGRAM}")
endif()

add_library(nanochat_options INTERFACE)
target_compile_features(nanochat_options INTERFACE cxx_std_20)
if(CCACHE_PROGRAM AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND NOT CMAKE_DISABLE_PRECOMPILE_HEADERS)
  target_compile_options(nanochat_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
endif()
target_compile_options(nanochat_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wcast-align -Woverloaded-virtual -Wextra-semi
  # g++ 12 sees overlapping copies inside std::string where there are none (GCC bug 105651).
  $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>
  $<$<BOOL:${NANOCHAT_WERROR}>:-Werror>>)

if(NANOCHAT_SANITIZE)
  target_compile_options(nanochat_options INTERFACE
    -fsanitize=${NANOCHAT_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
  target_link_options(nanochat_options INTERFACE -fsanitize=${NANOCHAT_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Sanitizers keep values alive in ways that g++ 12 takes for uses before initialisation (GCC manual, -fsanitize).
    target_compile_options(nanochat_options INTERFACE -Wno-maybe-uninitialized)
  endif()
endif()
if(NANOCHAT_COVERAGE)
  target_compile_options(nanochat_options INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(nanochat_options INTERFACE --coverage)
endif()
