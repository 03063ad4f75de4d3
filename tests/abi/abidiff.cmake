# Types of all functions and structs, as libabigail reads them from debug information.
# LIBRARY: libmixtral.so with it; ABIDW, ABIDIFF: libabigail's programs.
cmake_minimum_required(VERSION 3.25)
include(${CMAKE_CURRENT_LIST_DIR}/stored.cmake)

if(NOT LIBRARY)
  message("SKIPPED: abidw and abidiff (package abigail-tools) were not found when the build was configured")
  return()
endif()
execute_process(COMMAND ${ABIDW} --exported-interfaces-only --headers-dir ${HEADER_DIR} --drop-private-types
                        --no-corpus-path --no-comp-dir-path --no-show-locs --no-elf-needed --type-id-style hash ${LIBRARY}
                OUTPUT_VARIABLE abi COMMAND_ERROR_IS_FATAL ANY)
if(UPDATE)
  string(REGEX REPLACE "path='[^']*/capi/" "path='capi/" abi "${abi}") # not where this build stands
  compare_with_stored("${abi}")
  return()
endif()
file(WRITE ${WORK}/found.abi "${abi}")
execute_process(COMMAND ${ABIDIFF} --harmless ${STORED} ${WORK}/found.abi OUTPUT_VARIABLE report RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "the ABI is not what ${STORED} says; tests/abi/README.md tells what to do\n${report}")
endif()
