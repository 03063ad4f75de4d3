# Shared by the scripts of this folder.

# Compares a text with what is stored, or stores it if UPDATE is on.
function(compare_with_stored text)
  if(UPDATE)
    file(WRITE ${STORED} "${text}")
    message(STATUS "wrote ${STORED}")
    return()
  endif()
  file(READ ${STORED} stored)
  if(NOT text STREQUAL stored)
    file(WRITE ${WORK}/found.txt "${text}")
    execute_process(COMMAND diff --unified=0 ${STORED} ${WORK}/found.txt OUTPUT_VARIABLE difference)
    message(FATAL_ERROR "the ABI is not what ${STORED} says; tests/abi/README.md tells what to do\n${difference}")
  endif()
endfunction()

# mixtral.h without its comments.
function(read_header result)
  file(READ ${HEADER_DIR}/mixtral.h text)
  string(REPLACE ";" "@" text "${text}") # a semicolon would begin a list's next element
  string(REGEX REPLACE "/\\*([^*]|\\*+[^*/])*\\*+/" "" text "${text}")
  set(${result} "${text}" PARENT_SCOPE)
endfunction()
if(NOT HEADER_DIR)
  set(HEADER_DIR ${ROOT}/capi/include)
endif()
file(MAKE_DIRECTORY ${WORK})
