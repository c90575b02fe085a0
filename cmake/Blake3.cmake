# BLAKE3's reference C and assembly sources, as Debian's librust-blake3-dev installs them; Debian 12
# has no C library of it.
file(GLOB blake3_source_dir /usr/share/cargo/registry/blake3-*/c)
if(NOT blake3_source_dir)
  message(FATAL_ERROR "BLAKE3 sources not found: run tools/setup (package librust-blake3-dev)")
endif()
list(GET blake3_source_dir 0 blake3_source_dir)

add_library(blake3 STATIC
  ${blake3_source_dir}/blake3.c
  ${blake3_source_dir}/blake3_dispatch.c
  ${blake3_source_dir}/blake3_portable.c
)
if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
  target_sources(blake3 PRIVATE
    ${blake3_source_dir}/blake3_sse2_x86-64_unix.S
    ${blake3_source_dir}/blake3_sse41_x86-64_unix.S
    ${blake3_source_dir}/blake3_avx2_x86-64_unix.S
    ${blake3_source_dir}/blake3_avx512_x86-64_unix.S
  )
endif()
target_include_directories(blake3 SYSTEM INTERFACE ${blake3_source_dir})
set_target_properties(blake3 PROPERTIES POSITION_INDEPENDENT_CODE ON C_STANDARD 99)
