# Builds the hosts that use find_package, and runs them.
# PREFIX: where mixtral is installed; SOURCES: the tests; WORK: a folder of the test's own; GENERATOR.
cmake_minimum_required(VERSION 3.25)
include(${CMAKE_CURRENT_LIST_DIR}/common.cmake)

if(NOT IS_DIRECTORY ${PREFIX})
  message("SKIPPED: there is no ${PREFIX}, since the test that makes it was skipped")
  return()
endif()
file(REMOVE_RECURSE ${WORK})
function(build name source) # [-D ...]
  run(${CMAKE_COMMAND} -S ${source} -B ${WORK}/${name} -G ${GENERATOR} -D CMAKE_PREFIX_PATH=${PREFIX} ${ARGN})
  run(${CMAKE_COMMAND} --build ${WORK}/${name})
endfunction()

build(c ${SOURCES}/install/host -D LANGUAGE=C)
build(cpp ${SOURCES}/install/host -D LANGUAGE=CXX)
build(headers ${SOURCES}/install/headers -D SOURCE=${SOURCES}/embed/host/headers.cpp)
foreach(program c/shared c/static cpp/shared cpp/static cpp/core)
  check_host(${PREFIX} ${WORK}/${program})
endforeach()
run(${WORK}/headers/headers)

# The programs are what their names say.
foreach(language c cpp)
  run(readelf --dynamic ${WORK}/${language}/shared)
  if(NOT output MATCHES "NEEDED[^\n]*libmixtral\\.so\\.[0-9]+\\]")
    message(FATAL_ERROR "${language}/shared does not need libmixtral:\n${output}")
  endif()
  run(readelf --dynamic ${WORK}/${language}/static)
  if(output MATCHES "libmixtral|libsentencepiece")
    message(FATAL_ERROR "${language}/static needs a library too many:\n${output}")
  endif()
endforeach()
