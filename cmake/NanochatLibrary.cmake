# nanochat_library(NAME name SRCS ... [DEPS ...] [PRIVATE_DEPS ...] [TESTS ...] [TEST_DEPS ...])
#
# Declares the static library nanochat_<name>, linked everywhere as nanochat::<name>. Its headers are included by their
# path below libs/. DEPS are seen by its users, PRIVATE_DEPS are not. TESTS names unit tests, one executable each
# (see nanochat_test). Together these calls are the architecture: a dependency that is not listed does not compile.
function(nanochat_library)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS;PRIVATE_DEPS;TESTS;TEST_DEPS" ${ARGN})
  if(ARG_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "nanochat_library(${ARG_NAME}): unknown arguments ${ARG_UNPARSED_ARGUMENTS}")
  endif()
  set(target "nanochat_${ARG_NAME}")
  add_library(${target} STATIC ${ARG_SRCS})
  add_library(nanochat::${ARG_NAME} ALIAS ${target})
  target_include_directories(${target} PUBLIC "${PROJECT_SOURCE_DIR}/libs")
  target_link_libraries(${target} PUBLIC ${ARG_DEPS} PRIVATE nanochat_options ${ARG_PRIVATE_DEPS})
  target_compile_features(${target} PUBLIC cxx_std_20)
  nanochat_precompile(${target} nanochat_precompiled ${ARG_DEPS} ${ARG_PRIVATE_DEPS})
  if(NANOCHAT_TESTS)
    foreach(source IN LISTS ARG_TESTS)
      nanochat_test(SOURCE ${source} PREFIX ${ARG_NAME} LABEL unit DEPS nanochat::${ARG_NAME} ${ARG_TEST_DEPS})
    endforeach()
  endif()
endfunction()

# nanochat_test(SOURCE file_test.cpp PREFIX group LABEL unit|property|parity|contract|integration|load [DEPS ...]
#               [TIMEOUT seconds] [SERIAL])
#
# One GoogleTest executable and one ctest entry group.file_test. Tests that need data beside the repository read
# NANOCHAT_SHARED_DIR (the environment wins over the path compiled in) and skip with a message when it is absent.
function(nanochat_test)
  cmake_parse_arguments(ARG "SERIAL" "SOURCE;PREFIX;LABEL;TIMEOUT" "DEPS" ${ARGN})
  get_filename_component(stem ${ARG_SOURCE} NAME_WE)
  set(target "${ARG_PREFIX}_${stem}")
  add_executable(${target} ${ARG_SOURCE})
  target_link_libraries(${target} PRIVATE ${ARG_DEPS} nanochat_options nanochat::testing GTest::gmock GTest::gtest_main)
  nanochat_precompile(${target} nanochat_precompiled_test ${ARG_DEPS})
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
  add_test(NAME ${ARG_PREFIX}.${stem} COMMAND ${target})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  set_tests_properties(${ARG_PREFIX}.${stem} PROPERTIES LABELS "${ARG_LABEL};${ARG_PREFIX}" TIMEOUT ${ARG_TIMEOUT}
    RUN_SERIAL "${ARG_SERIAL}")
endfunction()
