#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/bus.h"
#include "core/clock.h"
#include "core/hypervisor.h"
#include "core/sharing_domain.h"

namespace samepage::agent {

using Domains = std::map<std::string, SharingDomain>;

/// Looks at this host's guests and says what the placer is to know of them.
///
/// Invariant: every fingerprint that it reports is of a scan that was completed, with its age; one
/// that could not be renewed is reported as old as it is.
/// Threads: one at a time; list() from any thread.
class Reporter {
 public:
  /// `pressure_folder`: as host_pressure.h's; empty: pressure is not known.
  Reporter(Hypervisor& hypervisor, const Clock& clock, std::string pressure_folder)
      : hypervisor_(hypervisor), clock_(clock), pressure_folder_(std::move(pressure_folder)) {}

  enum class Effort : std::uint8_t {
    kScan,    ///< Scan every guest whose sharing domain is known, and count the guests' frames.
    kAtOnce,  ///< Say what is known already, with the states of now.
  };

  /// A guest that ends meanwhile is left out. kUnavailable: libvirt cannot be asked.
  Result<bus::HostReport> report(const Domains& domains, Effort effort);

  /// Which guests are here, without looking at their memory.
  Result<bus::VmList> list();

 private:
  struct Scanned {
    std::vector<std::byte> fingerprint;
    std::chrono::steady_clock::time_point at;
  };

  void rescan(const VmInfo& vm, const Domains& domains);

  Hypervisor& hypervisor_;
  const Clock& clock_;
  const std::string pressure_folder_;
  std::map<VmId, Scanned> scanned_;
  bus::HostMemory memory_;  // As counted last.
};

}  // namespace samepage::agent
