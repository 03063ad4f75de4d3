# Nothing is compiled for this machine alone or with another arithmetic than the source says.
# COMMANDS: compile_commands.json of this build.
cmake_minimum_required(VERSION 3.25)

file(READ ${COMMANDS} text)
foreach(flag -march=native -mtune=native -mcpu=native -ffast-math -Ofast -funsafe-math-optimizations -ffp-contract=fast
             -fassociative-math)
  string(FIND "${text}" "${flag}" at)
  if(NOT at EQUAL -1)
    message(FATAL_ERROR "${flag} in ${COMMANDS}")
  endif()
endforeach()
string(FIND "${text}" "-ffp-contract=off" at)
if(at EQUAL -1)
  message(FATAL_ERROR "no -ffp-contract=off in ${COMMANDS}")
endif()
