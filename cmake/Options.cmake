# One interface target carries every flag; modules link it through samepage::core.
add_library(samepage_options INTERFACE)
target_compile_features(samepage_options INTERFACE cxx_std_20)
target_compile_options(samepage_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wold-style-cast
  -Wnon-virtual-dtor -Woverloaded-virtual -Wformat=2 -Wextra-semi -Wundef
  -Wzero-as-null-pointer-constant
  # At -O3 GCC 12 sees overlapping copies in "text" + std::string (its bug 105329), and what other
  # alternatives of a moved std::variant would have read (its bug 80635).
  "$<$<CONFIG:Release>:-Wno-restrict;-Wno-maybe-uninitialized>")

option(SAMEPAGE_WERROR "Treat warnings as errors (CI)" OFF)
if(SAMEPAGE_WERROR)
  target_compile_options(samepage_options INTERFACE -Werror)
endif()

set(SAMEPAGE_SANITIZE "" CACHE STRING "address;undefined, or thread")
if(SAMEPAGE_SANITIZE)
  list(JOIN SAMEPAGE_SANITIZE "," sanitizers)
  target_compile_options(samepage_options INTERFACE
    -fsanitize=${sanitizers} -fno-omit-frame-pointer -fno-sanitize-recover=all
    # GCC 12 takes instrumented copies into fresh vectors for overflows.
    -Wno-stringop-overflow)
  target_link_options(samepage_options INTERFACE -fsanitize=${sanitizers})
endif()

# libFuzzer's instrumentation in every library; only fuzz targets link its main (tests/fuzz).
option(SAMEPAGE_FUZZ "Build the fuzz targets with libFuzzer (clang)" OFF)
if(SAMEPAGE_FUZZ)
  target_compile_options(samepage_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

find_program(SAMEPAGE_MOLD mold)
if(SAMEPAGE_MOLD)
  target_link_options(samepage_options INTERFACE -fuse-ld=mold)
endif()
