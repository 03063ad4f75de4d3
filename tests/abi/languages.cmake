# mixtral.h and mixtral.hpp in every language that may include them, with all warnings, by every compiler that is here;
# and the stored layout, checked by that compiler.
cmake_minimum_required(VERSION 3.25)
include(${CMAKE_CURRENT_LIST_DIR}/stored.cmake)

# Twice, as a file of a host might.
file(WRITE ${WORK}/use.c "#include \"mixtral.h\"\n#include \"mixtral.h\"
#ifdef __cplusplus
#define CHECK(condition) static_assert(condition, #condition);
#elif __STDC_VERSION__ >= 201112L
#define CHECK(condition) _Static_assert(condition, #condition);
#else
#define CHECK(condition)
#endif
#define MIXTRAL_FIELD(type, field, offset, size) \\
  CHECK(offsetof(type, field) == offset && sizeof(((type*)0)->field) == size)
#define MIXTRAL_SIZE(type, size) CHECK(sizeof(type) == size)
#define MIXTRAL_VALUE(constant, value) CHECK(constant == value)
#include \"${STORED}\"
mixtral_status use(void);
mixtral_status use(void) { return (mixtral_status)MIXTRAL_VERSION - (mixtral_status)mixtral_version(); }
")
set(count 0)
function(compile program language standard file)
  find_program(${program} ${program})
  if(NOT ${program})
    message(STATUS "no ${program} here")
    return()
  endif()
  message(STATUS "${program} -std=${standard}")
  execute_process(COMMAND ${${program}} -x ${language} -std=${standard} -pedantic -Werror -Wall -Wextra -Wconversion -Wshadow
                          -fsyntax-only -I ${HEADER_DIR} ${ARGN} ${file} COMMAND_ERROR_IS_FATAL ANY)
  math(EXPR count "${count} + 1")
  set(count ${count} PARENT_SCOPE)
endfunction()
foreach(program gcc clang)
  compile(${program} c c99 ${WORK}/use.c -Wstrict-prototypes)
  compile(${program} c c11 ${WORK}/use.c -Wstrict-prototypes)
  compile(${program} c c17 ${WORK}/use.c -Wstrict-prototypes)
endforeach()
foreach(program g++ clang++)
  compile(${program} c++ c++11 ${WORK}/use.c)
  compile(${program} c++ c++20 ${WORK}/use.c)
endforeach()
file(WRITE ${WORK}/use.cpp "#include \"mixtral.hpp\"\n#include \"mixtral.hpp\"\n")
foreach(program g++ clang++)
  compile(${program} c++ c++17 ${WORK}/use.cpp)
  compile(${program} c++ c++20 ${WORK}/use.cpp)
endforeach()
if(count LESS 7)
  message(FATAL_ERROR "only ${count} compilations: no compiler was found")
endif()
