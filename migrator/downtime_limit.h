#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace samepage::migrator {

/// What QEMU may aim at as the guest's downtime. QEMU stops the guest once what is left would take
/// so long at the speed of the last 100 ms; while pages pass that the target has, that speed says
/// little of the pages left. So it begins low, which costs a guest that writes little nothing, and
/// rises by half with each pass over the memory that did not come to an end. A pure function.
class DowntimeLimit {
 public:
  static constexpr std::uint64_t kPassesFirst = 3;  ///< With the first limit.

  DowntimeLimit(std::chrono::milliseconds first, std::chrono::milliseconds max)
      : first_(std::min(first, max)), max_(max) {}

  std::chrono::milliseconds first() const { return first_; }

  /// While QEMU is in its pass number `passes`, from 1.
  std::chrono::milliseconds after(std::uint64_t passes) const {
    auto limit = first_;
    for (std::uint64_t pass = kPassesFirst; pass < passes && limit < max_; ++pass) {
      limit = std::min(max_, limit * 3 / 2);
    }
    return limit;
  }

 private:
  std::chrono::milliseconds first_;
  std::chrono::milliseconds max_;
};

}  // namespace samepage::migrator
