# Offset and size of every field, size of every struct, value of every constant of mixtral.h: as the compiler sees them
# and as layout.h has stored them.  CC: a C compiler; HEADER_DIR: where mixtral.h is, if not the project's.
cmake_minimum_required(VERSION 3.25)
include(${CMAKE_CURRENT_LIST_DIR}/stored.cmake)

read_header(header)
set(prints "")
string(REGEX MATCHALL "typedef struct [a-z_]+ {[^}]*}" structs "${header}")
foreach(struct IN LISTS structs)
  string(REGEX MATCH "struct ([a-z_]+) {(.*)}" _ "${struct}")
  set(name ${CMAKE_MATCH_1})
  string(REGEX MATCHALL "[a-z_0-9]+@" fields "${CMAKE_MATCH_2}")
  list(TRANSFORM fields REPLACE "@" "")
  foreach(field IN LISTS fields)
    string(APPEND prints "  FIELD(${name}, ${field})\n")
  endforeach()
  string(APPEND prints "  END(${name})\n")
endforeach()
string(REGEX MATCHALL "enum {[^}]*}" enums "${header}")
foreach(enum IN LISTS enums)
  string(REGEX MATCHALL "MIXTRAL_[A-Z_0-9]+" constants "${enum}")
  foreach(constant IN LISTS constants)
    string(APPEND prints "  VALUE(${constant})\n")
  endforeach()
endforeach()

# END fails if a struct has padding, or a field that was not seen above.
file(WRITE ${WORK}/print.c "#include \"mixtral.h\"
#include <stdio.h>
#define FIELD(type, field)                                                                            \\
  if (offsetof(type, field) != end) return fprintf(stderr, \"a gap before \" #type \".\" #field \"\\n\"); \\
  end += sizeof(((type*)0)->field);                                                                   \\
  printf(\"MIXTRAL_FIELD(\" #type \", \" #field \", %zu, %zu)\\n\", offsetof(type, field), sizeof(((type*)0)->field));
#define END(type)                                                                      \\
  if (sizeof(type) != end) return fprintf(stderr, \"a gap at the end of \" #type \"\\n\"); \\
  printf(\"MIXTRAL_SIZE(\" #type \", %zu)\\n\", end);                                     \\
  end = 0;
#define VALUE(constant) printf(\"MIXTRAL_VALUE(\" #constant \", %d)\\n\", (int)constant);
int main(void) {
  size_t end = 0;
${prints}  return 0;
}
")
execute_process(COMMAND ${CC} -I ${HEADER_DIR} ${WORK}/print.c -o ${WORK}/print COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${WORK}/print OUTPUT_VARIABLE lines COMMAND_ERROR_IS_FATAL ANY)
compare_with_stored(
"/* The layout of mixtral.h where pointers have 8 bytes: offset and size of every field, size of every struct, value of
 * every constant. Written by mixtral_update_abi; nothing here may ever change, only be added. */
${lines}")

# Nothing was overlooked: the program above proves it of the fields, another way of counting of the rest.
file(STRINGS ${HEADER_DIR}/mixtral.h texts REGEX "^typedef struct [a-z_]+ {")
list(LENGTH texts n_structs)
string(REGEX MATCHALL "MIXTRAL_[A-Z_0-9]+ = " texts "${header}")
list(LENGTH texts n_values)
string(REGEX MATCHALL "MIXTRAL_FIELD" fields "${lines}")
string(REGEX MATCHALL "MIXTRAL_SIZE" sizes "${lines}")
string(REGEX MATCHALL "MIXTRAL_VALUE" values "${lines}")
list(LENGTH fields n_fields)
list(LENGTH sizes n_sizes)
list(LENGTH values n_seen)
message(STATUS "${n_sizes} structs, ${n_fields} fields, ${n_seen} constants")
if(NOT n_structs EQUAL n_sizes OR NOT n_values EQUAL n_seen OR n_values EQUAL 0)
  message(FATAL_ERROR "mixtral.h has ${n_structs} structs and ${n_values} constants")
endif()
