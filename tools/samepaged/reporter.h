#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "core/bus.h"
#include "core/clock.h"
#include "core/hypervisor.h"
#include "fingerprinter/fingerprint.h"
#include "tools/samepaged/guest_watches.h"
#include "tools/samepaged/host_memory.h"
#include "tools/samepaged/ksm_driver.h"

namespace samepage::agent {

/// Looks at this host's guests and says what the placer is to know of them.
///
/// Invariant: every fingerprint that it reports is of a scan that was completed, with its age; one
/// that could not be renewed is reported as old as it is.
/// Threads: one at a time; list(), send_whole() and watches() from any thread.
class Reporter {
 public:
  struct Options {
    GuestWatches::Options watches;
    HostMemory::Options memory;
    std::string pressure_folder;  ///< As host_pressure.h's; empty: pressure is not known.
  };

  Reporter(const Options& options, Hypervisor& hypervisor, const Clock& clock)
      : options_(options),
        hypervisor_(hypervisor),
        clock_(clock),
        watches_(options.watches, clock),
        memory_(options.memory, clock) {}

  enum class Effort : std::uint8_t {
    kScan,    ///< Scan every guest whose sharing domain is known, and count the guests' frames.
    kInTurn,  ///< The same; frames are counted when it is their turn (HostMemory).
    kAtOnce,  ///< Say what is known already, with the states of now.
  };

  /// A guest that ends meanwhile is left out. A fingerprint is told as what makes it of the one
  /// that was told before, where that is shorter. kUnavailable: libvirt cannot be asked.
  Result<bus::HostReport> report(const Domains& domains, Effort effort);

  /// The next report has no deltas: the placer does not have what those are for.
  void send_whole() { send_whole_ = true; }

  /// Which guests are here, without looking at their memory.
  Result<bus::VmList> list();

  GuestWatches& watches() { return watches_; }

  /// What the last report that was not at once says to who drives KSM.
  KsmNews ksm_news() const { return news_; }

 private:
  void note_news(std::span<const VmInfo> vms, const bus::HostMemory& memory);
  void put_fingerprint(const VmId& vm, const GuestWatches::Known& known, bus::Vm& message);

  const Options options_;
  Hypervisor& hypervisor_;
  const Clock& clock_;
  GuestWatches watches_;
  std::map<VmId, fingerprinter::Fingerprint> told_;
  std::atomic<bool> send_whole_ = false;
  HostMemory memory_;
  KsmNews news_;
};

}  // namespace samepage::agent
