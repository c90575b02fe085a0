#pragma once

#include <cstdint>

namespace samepage::fingerprinter {

/// To whom the pages of a guest's RAM belong that are in memory; the kernel's zero page belongs to
/// nobody. Pages of 4 KiB.
struct MemoryShares {
  std::uint64_t own = 0;  ///< Nobody else's: what ending the guest would free.

  /// Of its template, whose file a fork maps privately: what it has not written, seen or not.
  std::uint64_t of_template = 0;
  std::uint64_t ksm = 0;  ///< Merged by KSM.

  bool operator==(const MemoryShares&) const = default;
};

}  // namespace samepage::fingerprinter
