# Libraries whose own CMake or pkg-config files give more than we use, as imported targets. The build includes this
# file, and so does the installed mixtralConfig.cmake; what is not found makes no target.
#
# mixtral::xsimd: Debian's xsimd target drags in xtl, which only complex numbers need.
# mixtral::sentencepiece: its pkg-config file also names the training library, which nothing here calls.
find_path(MIXTRAL_XSIMD_DIR xsimd/xsimd.hpp)
find_library(MIXTRAL_SENTENCEPIECE sentencepiece)
mark_as_advanced(MIXTRAL_XSIMD_DIR MIXTRAL_SENTENCEPIECE)

if(MIXTRAL_XSIMD_DIR AND NOT TARGET mixtral::xsimd)
  add_library(mixtral::xsimd INTERFACE IMPORTED)
  set_target_properties(mixtral::xsimd PROPERTIES INTERFACE_INCLUDE_DIRECTORIES ${MIXTRAL_XSIMD_DIR})
endif()
if(MIXTRAL_SENTENCEPIECE AND NOT TARGET mixtral::sentencepiece)
  add_library(mixtral::sentencepiece INTERFACE IMPORTED)
  set_target_properties(mixtral::sentencepiece PROPERTIES INTERFACE_LINK_LIBRARIES ${MIXTRAL_SENTENCEPIECE})
endif()
