#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fingerprinter/fingerprint.h"
#include "fingerprinter/overlap.h"
#include "placer/fleet.h"

namespace samepage::placer {

using fingerprinter::Estimate;

/// VMs as the functions below take them: borrowed from a Fleet that outlives the call.
using VmSpan = std::span<const Vm* const>;

/// What VMs share when they are on one host and every page with equal content in one domain is
/// merged. VMs without a fingerprint, and those that KSM leaves alone, share nothing.
struct HostSharing {
  std::uint64_t zero = 0;    ///< Zero pages that guests touched.
  std::uint64_t within = 0;  ///< Pages that repeat a page of the same VM.
  Estimate between;          ///< Pages that repeat a page of another VM.

  Estimate total() const;
};

HostSharing predict_sharing(VmSpan vms);

/// The distinct pages of a set of VMs, domain by domain. Zero pages are left out: they are shared
/// wherever a VM runs.
///
/// Threads: const methods may run at the same time. Lifetime: borrows nothing.
class PageUnion {
 public:
  PageUnion() = default;
  explicit PageUnion(VmSpan vms);

  void add(const Vm& vm);
  void add(const PageUnion& other);

  /// Distinct pages that both have.
  Estimate common(const Vm& vm) const;
  Estimate common(const PageUnion& other) const;

  /// Pages of memory that the VMs need once they are merged. A VM without a fingerprint counts
  /// with all its RAM: nothing is known in its favour.
  std::uint64_t footprint() const;

 private:
  void add(const std::string& domain, const fingerprinter::Fingerprint& fingerprint);

  std::map<std::string, fingerprinter::Fingerprint, std::less<>> by_domain_;
  std::uint64_t unscanned_pages_ = 0;
};

/// Pages that a VM brings to a host before any of them is merged there: present and not zero.
std::uint64_t own_pages(const Vm& vm);

struct PairSharing {
  const Vm* a = nullptr;  ///< Borrowed from the fleet.
  const Vm* b = nullptr;
  Estimate common;
};

/// The pairs of VMs of one domain that have most in common, most first, wherever they run; at most
/// `count`. Pairs whose interval reaches down to zero are left out.
std::vector<PairSharing> most_alike(const Fleet& fleet, std::size_t count);

/// The VM that has most in common with `vm`; none when nothing is surely in common with any.
std::optional<PairSharing> most_alike_with(const Vm& vm, const Fleet& fleet);

}  // namespace samepage::placer
