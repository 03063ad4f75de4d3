# What libmixtral shows: the functions of mixtral.h and of mixtral.map, no more and no fewer, and nothing of C++.
# SHARED, STATIC: the libraries; NM: the nm program; VERSION: the project's.
cmake_minimum_required(VERSION 3.25)
include(${CMAKE_CURRENT_LIST_DIR}/stored.cmake)

# A symbol a line, sorted, with its version; nm's letter before it unless that is T.
execute_process(COMMAND ${NM} --dynamic --defined-only --with-symbol-versions ${SHARED} OUTPUT_VARIABLE text
                COMMAND_ERROR_IS_FATAL ANY)
string(REGEX REPLACE "[0-9a-f]+ (T )?" "" text "${text}")
string(REGEX REPLACE "A MIXTRAL_[0-9.]+\n" "" text "${text}") # the version nodes themselves
compare_with_stored("${text}")

string(REGEX REPLACE "@+MIXTRAL_[0-9.]+" "" exported "${text}")
function(must_be_exported what text pattern)
  string(REGEX MATCHALL "${pattern}" names "${text}")
  list(TRANSFORM names REPLACE "[^a-z_]" "")
  list(SORT names)
  list(JOIN names "\n" names)
  if(NOT "${names}\n" STREQUAL exported)
    message(FATAL_ERROR "the functions of ${what} are\n${names}\nexported are\n${exported}")
  endif()
endfunction()
read_header(header)
string(REGEX REPLACE "MIXTRAL_API[^(]* [*]?(mixtral_[a-z_]+)\\(" "<\\1>" header "${header}")
must_be_exported(mixtral.h "${header}" "<mixtral_[a-z_]+>")
file(READ ${ROOT}/capi/mixtral.map map)
string(REPLACE ";" "@" map "${map}")
must_be_exported(mixtral.map "${map}" "    mixtral_[a-z_]+@")

# Of the archive, everything that could meet a host's symbol, weak and unique ones too.
execute_process(COMMAND ${NM} --defined-only --extern-only ${STATIC} OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[0-9a-f]+ [A-Za-z] [^\n]*" lines "${text}")
list(TRANSFORM lines REPLACE "^[0-9a-f]+ T " "    ")
list(TRANSFORM lines APPEND "@")
list(JOIN lines "\n" text)
must_be_exported(libmixtral.a "${text}" "    [^@\n]*@")

# One version everywhere: the soname's, the header's and the project's.
execute_process(COMMAND readelf --dynamic ${SHARED} OUTPUT_VARIABLE dynamic COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCH "^[0-9]+" major ${VERSION})
string(REGEX MATCHALL "define MIXTRAL_VERSION_[A-Z]+ [0-9]+" parts "${header}")
list(TRANSFORM parts REPLACE ".* " "")
list(JOIN parts "." header_version)
if(NOT dynamic MATCHES "SONAME[^\n]*\\[libmixtral\\.so\\.${major}\\]" OR NOT header_version STREQUAL VERSION)
  message(FATAL_ERROR "version ${VERSION}, in mixtral.h ${header_version}\n${dynamic}")
endif()
