# Headers that most files of the libraries above LibTorch read, parsed once instead of in each of some 600 files: ATen's
# headers alone take 7 seconds a file with g++ 12. This halves the time of such a file.
#
# Every file still includes what it uses: the preset `clang` builds without this (CMAKE_DISABLE_PRECOMPILE_HEADERS), so
# scripts/check.sh --clang finds a missing include. Files with flags of their own set SKIP_PRECOMPILE_HEADERS.
file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/precompiled.cpp" CONTENT "")
set(_headers <ATen/core/Tensor.h> <ATen/ops/empty.h> <nlohmann/json.hpp>
  <algorithm> <filesystem> <functional> <map> <memory> <optional> <span> <string> <vector>)

add_library(nanochat_precompiled OBJECT "${CMAKE_BINARY_DIR}/precompiled.cpp")
target_link_libraries(nanochat_precompiled PRIVATE nanochat_options LibTorch::cpu nlohmann_json::nlohmann_json)
target_precompile_headers(nanochat_precompiled PRIVATE ${_headers})

if(NANOCHAT_TESTS)
  add_library(nanochat_precompiled_test OBJECT "${CMAKE_BINARY_DIR}/precompiled.cpp")
  target_link_libraries(nanochat_precompiled_test PRIVATE nanochat_options LibTorch::cpu nlohmann_json::nlohmann_json
    GTest::gmock GTest::gtest)
  target_precompile_headers(nanochat_precompiled_test PRIVATE ${_headers} <gmock/gmock.h> <gtest/gtest.h>)
endif()

# nanochat_precompile(TARGET FROM DEPS...): TARGET reuses the headers of FROM where one of DEPS leads to LibTorch.
function(nanochat_precompile target from)
  foreach(dependency IN LISTS ARGN)
    set(leads OFF)
    if(dependency MATCHES "^LibTorch::")
      set(leads ON)
    elseif(TARGET ${dependency})
      get_target_property(leads ${dependency} NANOCHAT_LEADS_TO_LIBTORCH)
    endif()
    if(leads)
      set_target_properties(${target} PROPERTIES NANOCHAT_LEADS_TO_LIBTORCH ON)
      target_precompile_headers(${target} REUSE_FROM ${from})
      return()
    endif()
  endforeach()
endfunction()
