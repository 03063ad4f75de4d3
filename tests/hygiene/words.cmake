# The library never prints, aborts, exits or reads the environment, keeps its hands off signals and OpenMP
# settings. (The program, src/cli, may.)  ROOT: the project.
cmake_minimum_required(VERSION 3.25)

set(calls "v?[fd]?printf|f?puts|f?putc|putchar|perror|abort|_?exit|_Exit|quick_exit|terminate|getenv|secure_getenv|setenv|putenv|system|signal|sigaction|raise|omp_set_[a-z_]+")
set(calls "(^|[^A-Za-z0-9_])(${calls})[ \t]*\\(")
set(streams "std::(cout|cerr|clog|wcout|wcerr)|include *<(iostream|cstdio|csignal)>")

set(errors "")
file(GLOB_RECURSE files RELATIVE ${ROOT} ${ROOT}/include/*.hpp ${ROOT}/src/*.hpp ${ROOT}/src/*.cpp
     ${ROOT}/capi/*.hpp ${ROOT}/capi/*.cpp)
list(FILTER files EXCLUDE REGEX "^src/cli/")
foreach(file IN LISTS files)
  file(STRINGS ${ROOT}/${file} lines REGEX "${calls}|${streams}")
  foreach(line IN LISTS lines)
    if(NOT line MATCHES "^[ \t]*//")
      string(APPEND errors "\n${file}: ${line}")
    endif()
  endforeach()
endforeach()
if(errors)
  message(FATAL_ERROR "not in a library:${errors}")
endif()
