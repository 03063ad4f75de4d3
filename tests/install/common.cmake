# Shared by the scripts of this folder.
set(prompt "The file is")
set(n_tokens 16)

# Runs a command; its output comes back in `output`.
function(run) # COMMAND ...; `|` stands for a pipe
  list(JOIN ARGN "' '" command)
  string(REPLACE "'|'" "|" command "'${command}'")
  execute_process(COMMAND bash -o pipefail -c "${command}" OUTPUT_VARIABLE out ERROR_VARIABLE err RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${command}: ${result}\n${out}${err}")
  endif()
  set(output "${out}" PARENT_SCOPE)
endfunction()

# The installed program writes with the installed model, and no file names a folder of the build: the project, the
# build folder, the prefix that was the first. What the program writes is what the hosts have to write.
function(check_prefix prefix first)
  run(${prefix}/bin/mixtral generate --greedy --n ${n_tokens} --prompt ${prompt})
  string(LENGTH "${output}" length)
  if(length LESS ${n_tokens})
    message(FATAL_ERROR "the installed program wrote: ${output}")
  endif()
  file(WRITE ${prefix}/expected.txt "${output}")
  foreach(place ${ROOT} ${BUILD} ${first})
    execute_process(COMMAND grep --recursive --fixed-strings --files-with-matches ${place} ${prefix}
                    OUTPUT_VARIABLE found)
    if(found)
      message(FATAL_ERROR "${place} is named in\n${found}")
    endif()
  endforeach()
endfunction()

# A host's program has to write the text of the installed program.
function(check_host prefix program)
  file(READ ${prefix}/expected.txt expected)
  run(${program} ${prefix}/share/mixtral/models/tiny ${prompt} ${n_tokens})
  if(NOT output STREQUAL expected)
    message(FATAL_ERROR "${program} wrote\n${output}instead of\n${expected}")
  endif()
  message(STATUS "${program} writes the text")
endfunction()
