# Runs the compiler lines of examples/README.md exactly as printed, then the programs that they make.
# ROOT: the project; WORK: a folder that then looks like its root.
cmake_minimum_required(VERSION 3.25)

file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
file(CREATE_LINK ${ROOT}/include ${WORK}/include SYMBOLIC)
file(CREATE_LINK ${ROOT}/examples ${WORK}/examples SYMBOLIC)

file(STRINGS ${ROOT}/examples/README.md lines REGEX "^g\\+\\+ .* -o [a-z_]+$")
list(LENGTH lines count)
if(count LESS 2)
  message(FATAL_ERROR "examples/README.md prints ${count} compiler lines, expected at least 2")
endif()
foreach(line IN LISTS lines)
  string(REGEX MATCH "[a-z_]+$" program "${line}")
  message(STATUS "${line}")
  execute_process(COMMAND sh -c "${line}" WORKING_DIRECTORY ${WORK} COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND ${WORK}/${program} COMMAND_ERROR_IS_FATAL ANY)
endforeach()
