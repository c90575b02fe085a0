#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace samepage::fingerprinter {

/// What a guest's kernel uses a page of its RAM for.
enum class PageKind : std::uint8_t {
  kUnknown,       ///< No kernel was found, or it does not know the page.
  kOtherKernel,   ///< The kernel's, and its structures do not say what for.
  kKernelText,    ///< The kernel's own code.
  kKernelRodata,  ///< Its read-only data.
  kKernelData,    ///< Its variables.
  kBootMemory,    ///< Laid aside before there was an allocator: per-CPU variables, hash tables.
  kMemoryMap,     ///< The array of struct page.
  kPageTable,
  kLogBuffer,   ///< What dmesg shows, with its times.
  kModuleText,  ///< Also what BPF was translated to.
  kModuleData,
  kSlab,  ///< Small structures, by the name of their cache.
  kKernelStack,
  kVmalloc,
  kPageCache,     ///< Files, by name.
  kSharedMemory,  ///< tmpfs and shared memory.
  kProcess,       ///< Anonymous memory of processes, by their name: heaps and stacks.
  kFree,          ///< Stale: what the last user left.
  kFirmware,
};
inline constexpr std::size_t kPageKinds = 19;

/// "kernel text", "page cache", ...
std::string_view name_of(PageKind kind);

/// The kind says what a page is for.
inline bool is_named(PageKind kind) {
  return kind != PageKind::kUnknown && kind != PageKind::kOtherKernel;
}

/// For each page of a RAM image what it is for, and within its kind its name: an index of `words`,
/// whose first is the empty word.
struct PageNames {
  struct Use {
    PageKind kind = PageKind::kUnknown;
    std::uint32_t word = 0;
  };
  std::vector<Use> uses;
  std::vector<std::string> words = {""};
};

}  // namespace samepage::fingerprinter
