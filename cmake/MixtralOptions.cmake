# What every target of the project is compiled with; users of the library inherit none of it.
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
  set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  find_program(CCACHE ccache)
  if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
    set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
  endif()
endif()

# -ffp-contract=off: a fused multiply-add happens where the source says so and nowhere else, so that the
# same source gives the same bits with every compiler and instruction set.
add_library(mixtral_flags INTERFACE)
target_compile_options(mixtral_flags INTERFACE -Wall -Wextra -Wconversion -Wshadow
                                               -ffp-contract=off -fno-math-errno)
if(MIXTRAL_WERROR)
  target_compile_options(mixtral_flags INTERFACE -Werror)
endif()

add_library(mixtral_sanitize INTERFACE)
if(MIXTRAL_SANITIZE)
  target_compile_options(mixtral_sanitize INTERFACE -fsanitize=${MIXTRAL_SANITIZE} -fno-sanitize-recover=all
                                                    -fno-omit-frame-pointer)
  target_link_options(mixtral_sanitize INTERFACE -fsanitize=${MIXTRAL_SANITIZE})
endif()
if(MIXTRAL_FUZZ) # what the library is compiled with, so that libFuzzer sees where an input leads
  target_compile_options(mixtral_sanitize INTERFACE -fsanitize=fuzzer-no-link)
endif()
