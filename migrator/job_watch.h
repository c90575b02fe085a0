#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <stop_token>
#include <thread>

#include "core/hypervisor.h"

namespace samepage::migrator {

/// Asks libvirt again and again how much of a guest's memory is left to be sent, in a thread of its
/// own: while QEMU is busy libvirt takes seconds to answer, and nobody else should wait for that.
///
/// Threads: bytes_remaining() from any; begin() and finish() from one, once each.
class JobWatch final {
 public:
  /// `every`: between an answer and the next question. The hypervisor is borrowed and outlives
  /// this.
  JobWatch(VmId vm, std::chrono::milliseconds every, Hypervisor& hypervisor);

  /// The migration has begun, or will soon.
  void begin();

  /// Asks no more. Returns once what was asked has been answered: end the migration first.
  void finish();

  /// As QEMU estimated it last; 0 before the first answer.
  std::uint64_t bytes_remaining() const { return bytes_remaining_; }

 private:
  void ask(const std::stop_token& stop);

  const VmId vm_;
  const std::chrono::milliseconds every_;
  Hypervisor& hypervisor_;
  std::atomic<std::uint64_t> bytes_remaining_ = 0;
  std::jthread asking_;
};

}  // namespace samepage::migrator
