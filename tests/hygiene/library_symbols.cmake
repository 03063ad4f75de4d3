# What the compiled library calls: no printing, no end of the process, no environment, no signals, no OpenMP
# settings. It sees what the source search of words.cmake cannot: macros and inlined functions.
# LIBRARY: the archive; NM: the nm program; ASSERTS: whether assert() is compiled in.
cmake_minimum_required(VERSION 3.25)

execute_process(COMMAND ${NM} --undefined-only --format=just-symbols ${LIBRARY} OUTPUT_VARIABLE symbols
                COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]+" symbols "${symbols}")
list(REMOVE_DUPLICATES symbols)

set(banned
    "_*v?[fd]?printf(_chk)?|puts|fputs|fputc|putc|putchar|fwrite|perror|stdout|stderr"
    "_ZSt4cout|_ZSt4cerr|_ZSt4clog|_ZNSt8ios_base4InitC1Ev"
    "abort|_?exit|_Exit|quick_exit|atexit"
    "(secure_)?getenv|setenv|putenv|system"
    "signal|sigaction|raise|kill"
    "omp_set_.*")
if(NOT ASSERTS)
  list(APPEND banned "__assert_fail")
endif()
string(REPLACE ";" "|" banned "${banned}")
set(found ${symbols})
list(FILTER found INCLUDE REGEX "^(${banned})$")
if(found)
  message(FATAL_ERROR "${LIBRARY} calls: ${found}")
endif()
list(LENGTH symbols count)
if(count LESS 20)
  message(FATAL_ERROR "${LIBRARY}: only ${count} undefined symbols, nm was not read")
endif()
