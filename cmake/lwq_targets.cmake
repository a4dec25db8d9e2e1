# lwq_library, lwq_binary and lwq_test: the only ways a target is made.

add_library(lwq_options INTERFACE)
target_include_directories(lwq_options INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
target_compile_definitions(lwq_options INTERFACE LWQ_VERSION="${PROJECT_VERSION}")
# GCC 12 is wrong at -O3 about std::string's operator+ (-Wrestrict, its bug 105651) and about vectors
# in a moved struct, and under a sanitizer about std::regex (-Wmaybe-uninitialized, its manual says so).
target_compile_options(lwq_options INTERFACE -Wall -Wextra -Wno-missing-field-initializers
                       $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict -Wno-maybe-uninitialized>)
# An error where lwq is developed and tested, not in the build of a user, whose compiler may warn of more.
option(LWQ_WARNINGS_ARE_ERRORS "Stop at a compiler warning" OFF)
if(LWQ_WARNINGS_ARE_ERRORS)
  target_compile_options(lwq_options INTERFACE -Werror)
endif()
# Bit-for-bit determinism: no contraction or reassociation that depends on the optimiser's mood.
target_compile_options(lwq_options INTERFACE -ffp-contract=off)
if(LWQ_SANITIZE)
  set(LWQ_SANITIZE_OPTIONS -fsanitize=${LWQ_SANITIZE})
  # protobuf's map fields have more members where this is defined; in Debian's library it was not.
  if(LWQ_SANITIZE MATCHES "thread")
    list(APPEND LWQ_SANITIZE_OPTIONS -U__SANITIZE_THREAD__)
  endif()
  target_compile_options(lwq_options INTERFACE ${LWQ_SANITIZE_OPTIONS} -fno-omit-frame-pointer
                                               -fno-sanitize-recover=all)
  target_link_options(lwq_options INTERFACE -fsanitize=${LWQ_SANITIZE})
  # For code to ask, because the compiler's own macro is undefined above.
  target_compile_definitions(lwq_options INTERFACE LWQ_SANITIZED)
endif()
# Feedback for libFuzzer, whose own main only the fuzzed program has (tests/fuzz).
if(LWQ_FUZZ)
  target_compile_options(lwq_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

# What the sanitizer's run-time is told, in a test and in the programs that it starts.
set(LWQ_TEST_ENVIRONMENT)
if(LWQ_SANITIZE MATCHES "thread")
  set(LWQ_TEST_ENVIRONMENT ENVIRONMENT "TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:\
suppressions=${CMAKE_SOURCE_DIR}/tests/sanitizers/tsan.supp")
elseif(LWQ_SANITIZE MATCHES "address")
  set(LWQ_TEST_ENVIRONMENT
      ENVIRONMENT "ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1")
endif()

# lwq_library(NAME lwq_x [SRCS a.cc ...] [DEPS ...]): a static library of the folder's .cc files
# (all but main.cc when SRCS is left out).
function(lwq_library)
  cmake_parse_arguments(A "" "NAME" "SRCS;DEPS" ${ARGN})
  if(NOT A_SRCS)
    file(GLOB A_SRCS CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} *.cc)
    list(REMOVE_ITEM A_SRCS main.cc)
  endif()
  if(A_SRCS)
    add_library(${A_NAME} STATIC ${A_SRCS})
    target_link_libraries(${A_NAME} PUBLIC lwq_options ${A_DEPS})
  else()
    add_library(${A_NAME} INTERFACE)
    target_link_libraries(${A_NAME} INTERFACE lwq_options ${A_DEPS})
  endif()
endfunction()

# lwq_binary(NAME lwq-x SRCS main.cc DEPS ...)
function(lwq_binary)
  cmake_parse_arguments(A "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${A_NAME} ${A_SRCS})
  target_link_libraries(${A_NAME} PRIVATE lwq_options ${A_DEPS})
endfunction()

# lwq_test(NAME x_test [SRCS ...] LABEL unit|conformance|cluster|slow|peers DEPS ...): one gtest
# binary of the folder's *_test.cc files; each case is a ctest of its own, under the label, or with
# ONE_PROCESS the whole binary is, where what the cases share is slow to start.
function(lwq_test)
  cmake_parse_arguments(A "ONE_PROCESS" "NAME;LABEL;TIMEOUT" "SRCS;DEPS" ${ARGN})
  if(NOT A_SRCS)
    file(GLOB A_SRCS CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} *_test.cc)
  endif()
  if(NOT A_SRCS)
    return()
  endif()
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 120)
  endif()
  add_executable(${A_NAME} ${A_SRCS})
  target_link_libraries(${A_NAME} PRIVATE lwq_options ${A_DEPS} lwq_testing GTest::gmock_main)
  target_compile_definitions(${A_NAME} PRIVATE LWQ_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
                                               LWQ_BIN_DIR="${CMAKE_BINARY_DIR}/bin")
  if(COMMAND lwq_precompile_test)
    lwq_precompile_test(${A_NAME} ${A_DEPS})
  endif()
  if(A_ONE_PROCESS)
    add_test(NAME ${A_NAME} COMMAND ${A_NAME})
    set_tests_properties(${A_NAME} PROPERTIES LABELS "${A_LABEL}" TIMEOUT ${A_TIMEOUT}
                                              ${LWQ_TEST_ENVIRONMENT})
    return()
  endif()
  gtest_discover_tests(${A_NAME} DISCOVERY_MODE PRE_TEST
                       PROPERTIES LABELS "${A_LABEL}" TIMEOUT ${A_TIMEOUT} ${LWQ_TEST_ENVIRONMENT})
endfunction()

# Finds every folder under tests/ that has a CMakeLists.txt of its own, testing/ excepted.
function(lwq_test_folders)
  file(GLOB_RECURSE lists CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} */CMakeLists.txt)
  foreach(list ${lists})
    get_filename_component(folder ${list} DIRECTORY)
    if(NOT folder STREQUAL "testing")
      add_subdirectory(${folder})
    endif()
  endforeach()
endfunction()
