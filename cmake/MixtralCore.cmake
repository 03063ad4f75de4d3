# mixtral::core: kernels per instruction set, files, tokenizer, engine.
find_package(nlohmann_json REQUIRED)
find_path(MIXTRAL_XXHASH_INCLUDE xxhash.h REQUIRED) # its header alone: checksums of packed files
mark_as_advanced(MIXTRAL_XXHASH_INCLUDE)

# No unique symbols: objcopy cannot make them local, and a shared library that has one is never unloaded.
set(MIXTRAL_NO_UNIQUE $<$<CXX_COMPILER_ID:GNU>:-fno-gnu-unique>)

# One object library per instruction set: -O2 always, no sanitizers, no exceptions, no LTO, so that no
# shared inline function is compiled here with instructions that an older CPU lacks.
function(mixtral_add_isa name)
  add_library(mixtral_isa_${name} OBJECT ${PROJECT_SOURCE_DIR}/src/kernels/${name}.cpp)
  target_include_directories(mixtral_isa_${name} PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(mixtral_isa_${name} PRIVATE mixtral_flags mixtral::xsimd)
  target_compile_features(mixtral_isa_${name} PRIVATE cxx_std_20)
  target_compile_options(mixtral_isa_${name} PRIVATE -O2 -fno-exceptions -fno-rtti -fno-lto ${ARGN})
  target_compile_definitions(mixtral_isa_${name} PRIVATE NDEBUG)
  target_sources(mixtral_core PRIVATE $<TARGET_OBJECTS:mixtral_isa_${name}>)
  set_property(GLOBAL APPEND PROPERTY MIXTRAL_ISAS ${name})
endfunction()

file(GLOB MIXTRAL_CORE_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/core/*.cpp
     ${PROJECT_SOURCE_DIR}/src/io/*.cpp ${PROJECT_SOURCE_DIR}/src/text/*.cpp
     ${PROJECT_SOURCE_DIR}/src/runtime/*.cpp)
add_library(mixtral_core STATIC ${MIXTRAL_CORE_SOURCES} ${PROJECT_SOURCE_DIR}/src/kernels/calibration.cpp
                                ${PROJECT_SOURCE_DIR}/src/kernels/isa.cpp)
add_library(mixtral::core ALIAS mixtral_core)
set_target_properties(mixtral_core PROPERTIES EXPORT_NAME core CXX_VISIBILITY_PRESET hidden
                                              VISIBILITY_INLINES_HIDDEN ON)
target_compile_options(mixtral_core PRIVATE ${MIXTRAL_NO_UNIQUE})
target_include_directories(mixtral_core PRIVATE ${PROJECT_SOURCE_DIR}/src)
target_link_libraries(
  mixtral_core
  PUBLIC mixtral::headers
  PRIVATE $<BUILD_INTERFACE:mixtral_flags> $<BUILD_INTERFACE:mixtral_sanitize>
          $<BUILD_INTERFACE:nlohmann_json::nlohmann_json>)
# By name: what links the archives may be a program in C, or compiled by one that knows no OpenMP.
set(MIXTRAL_SYSTEM_LIBRARIES ${OpenMP_CXX_LIB_NAMES} pthread stdc++ m)
list(REMOVE_DUPLICATES MIXTRAL_SYSTEM_LIBRARIES)
foreach(library IN LISTS MIXTRAL_SYSTEM_LIBRARIES)
  target_link_libraries(mixtral_core PRIVATE $<INSTALL_INTERFACE:${library}>)
endforeach()

mixtral_add_isa(reference)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  target_compile_definitions(mixtral_core PRIVATE MIXTRAL_X86=1)
  set(MIXTRAL_AVX2_OPTIONS -mavx2 -mfma -mf16c)
  mixtral_add_isa(avx2 ${MIXTRAL_AVX2_OPTIONS})
  mixtral_add_isa(avx2_vnni ${MIXTRAL_AVX2_OPTIONS}) # its products are assembly
  set(avx512 -mavx512f -mavx512cd -mavx512dq -mavx512bw -mavx512vl -mavx2 -mfma -mf16c -mprefer-vector-width=512
             # gcc 12 warns inside its own AVX-512 headers
             $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized> $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized>)
  mixtral_add_isa(avx512 ${avx512})
  # gcc 12's partial redundancy elimination stores every sum of the inner loop to memory, in every round
  set(MIXTRAL_VNNI_OPTIONS ${avx512} -mavx512vnni $<$<CXX_COMPILER_ID:GNU>:-fno-tree-pre>)
  mixtral_add_isa(avx512_vnni ${MIXTRAL_VNNI_OPTIONS})
  mixtral_add_isa(avx512_bf16 ${avx512} -mavx512bf16 $<$<CXX_COMPILER_ID:GNU>:-fno-tree-pre>)
  mixtral_add_isa(amx_int8 ${MIXTRAL_VNNI_OPTIONS}) # tiles are assembly
  mixtral_add_isa(amx_bf16 ${MIXTRAL_VNNI_OPTIONS})
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  target_compile_definitions(mixtral_core PRIVATE MIXTRAL_AARCH64=1)
  mixtral_add_isa(neon)
endif()
