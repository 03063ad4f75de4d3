# Installs the build, moves the prefix, and looks whether it has forgotten where it was made.
# BUILD: the build folder; ROOT: the project; WORK: a folder of the test's own.
cmake_minimum_required(VERSION 3.25)
include(${CMAKE_CURRENT_LIST_DIR}/common.cmake)

file(REMOVE_RECURSE ${WORK})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/first)
file(RENAME ${WORK}/first ${WORK}/prefix)
check_prefix(${WORK}/prefix ${WORK}/first)
