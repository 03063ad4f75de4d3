# A weak symbol of an ISA object may be the one copy that the linker keeps for the whole program, and then old
# CPUs die on it: so every weak symbol has to carry the object's architecture in its name. And the object calls
# nothing that might be such a copy: only the memory functions that compilers insert.
# OBJECTS: object files; TAG: the architecture in symbol names, empty: no weak symbol at all; NM: the nm program.
cmake_minimum_required(VERSION 3.25)

execute_process(COMMAND ${NM} --demangle ${OBJECTS} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REPLACE "[" "(" symbols "${symbols}") # brackets and semicolons have a meaning in lists
string(REPLACE "]" ")" symbols "${symbols}")
string(REPLACE ";" "," symbols "${symbols}")
string(REPLACE "\n" ";" symbols "${symbols}")

set(tagged 0)
set(errors "")
foreach(symbol IN LISTS symbols)
  set(at -1)
  if(TAG)
    string(FIND "${symbol}" "${TAG}" at)
  endif()
  if(symbol MATCHES " [VWuvw] ")
    if(at EQUAL -1)
      string(APPEND errors "\nweak, without ${TAG} in its name: ${symbol}")
    else()
      math(EXPR tagged "${tagged} + 1")
    endif()
  elseif(at EQUAL -1 AND symbol MATCHES " U " AND NOT symbol MATCHES
                                              " U (mem(cpy|move|set|cmp)|_GLOBAL_OFFSET_TABLE_|__stack_chk_fail)$")
    string(APPEND errors "\nneeded from elsewhere: ${symbol}")
  endif()
endforeach()
if(errors)
  message(FATAL_ERROR "${OBJECTS}:${errors}")
elseif(TAG AND tagged EQUAL 0)
  message(FATAL_ERROR "${OBJECTS}: no symbol carries ${TAG}: wrong tag, or nothing is compiled there")
endif()
message(STATUS "${tagged} weak symbols, all tagged ${TAG}")
