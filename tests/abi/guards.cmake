# The other tests of this folder notice what they are there for: each change below is made to a copy of mixtral.h or of
# what is stored, and has to make a test fail with the words behind it.  CC, ABIDIFF as there.
cmake_minimum_required(VERSION 3.25)
include(${CMAKE_CURRENT_LIST_DIR}/stored.cmake)

function(copy_with_change file to old new)
  file(READ ${file} text)
  string(REPLACE "${old}" "${new}" changed "${text}")
  if(changed STREQUAL text)
    message(FATAL_ERROR "${file} has no \"${old}\" to change")
  endif()
  file(WRITE ${to} "${changed}")
endfunction()
function(must_fail what words) # COMMAND ...
  execute_process(COMMAND ${ARGN} OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE result)
  if(result EQUAL 0 OR NOT output MATCHES "${words}")
    message(FATAL_ERROR "not noticed: ${what}\n${output}")
  endif()
  message(STATUS "noticed: ${what}")
endfunction()

function(change_header what old new words)
  copy_with_change(${HEADER_DIR}/mixtral.h ${WORK}/mixtral.h "${old}" "${new}")
  must_fail(${what} ${words} ${CMAKE_COMMAND} -D ROOT=${ROOT} -D WORK=${WORK}/layout -D STORED=${STORED} -D CC=${CC}
            -D HEADER_DIR=${WORK} -P ${ROOT}/tests/abi/layout.cmake)
endfunction()
change_header("a field more" "int32_t add_bos; " "int32_t later, add_bos; " "gap")
change_header("a field at the end" "} mixtral_string;" "size_t capacity;\n} mixtral_string;" "capacity, 16, 8")
change_header("a field less" "  int64_t n_heads;\n" "" "n_heads")
change_header("two fields changed places" "int32_t isa;          /**< the instruction set in use */\n  int32_t executor; "
              "int32_t executor;\n  int32_t isa;" "executor, 4, 4")
change_header("padding" "int32_t top_k; " "int16_t top_k; " "gap")
change_header("another value" "MIXTRAL_BUSY = 10" "MIXTRAL_BUSY = 12" "MIXTRAL_BUSY, 12")
change_header("a constant more" "MIXTRAL_BUSY = 10," "MIXTRAL_BUSY = 10, MIXTRAL_TIRED = 12," "MIXTRAL_TIRED, 12")

if(ABIDIFF)
  function(change_types what old new)
    set(abi ${ROOT}/tests/abi/mixtral.abi)
    copy_with_change(${abi} ${WORK}/changed.abi "${old}" "${new}")
    must_fail(${what} "Functions changes summary" ${ABIDIFF} --harmless ${abi} ${WORK}/changed.abi)
  endfunction()
  change_types("a function less" "elf-symbol name='mixtral_session_fork'" "elf-symbol name='mixtral_session_spoon'")
  change_types("another size" "<class-decl name='mixtral_info' size-in-bits='1280'"
               "<class-decl name='mixtral_info' size-in-bits='1344'")
  change_types("another parameter" "<typedef-decl name='mixtral_status' type-id='3ff5601b'"
               "<typedef-decl name='mixtral_status' type-id='9da381c4'")
endif()
