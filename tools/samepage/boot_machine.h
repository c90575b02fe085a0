#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <sys/types.h>

#include "core/clock.h"
#include "core/fd.h"
#include "core/result.h"
#include "tools/samepage/qmp_client.h"

namespace samepage::cli {

/// How a VM is booted to be looked at.
struct BootMachineOptions {
  std::uint64_t memory_mib = 512;
  unsigned vcpus = 1;
  bool has_kvm = false;  ///< Else it is emulated.
  std::string kernel;    ///< Booted directly; empty: the disk's loader.
  std::string initrd;
  std::string command_line;      ///< Of the kernel.
  const Fd* disk = nullptr;      ///< Raw; never written to. None: no disk.
  bool has_fixed_seeds = false;  ///< QEMU's random numbers and the VM's UUID are always the same.
  bool has_fixed_clock = false;  ///< Time begins in 2026 and is counted in instructions.
  bool logs_blocks = false;      ///< Of the kernel, for read_log().
};

/// A VM of this machine's QEMU, without libvirt, with its RAM, its serial line and its log in files
/// without names: nothing is left when it, or this process, ends in whatever way.
///
/// Threads: one. Lifetime: its VM ends with it; borrows the disk.
class BootMachine {
 public:
  /// kInvalid: QEMU refused; the message is its own. kIo: it cannot be started.
  static Result<std::unique_ptr<BootMachine>> start(const BootMachineOptions& options);
  BootMachine(const BootMachine&) = delete;
  BootMachine& operator=(const BootMachine&) = delete;
  ~BootMachine();

  /// kUnavailable: the VM has ended; the message has the end of its serial line, and QEMU's words.
  Result<void> check_runs();

  /// Seconds that it ran, those in which it was paused left out.
  double ran_s() const;

  /// The guest has printed this on its serial line.
  bool has_said(std::string_view text);

  /// Copies the RAM of one moment, paused meanwhile, into a file without a name in `folder`.
  Result<Fd> copy_ram(const std::string& folder);

  /// The next of the log; empty when there is none within 100 ms.
  std::string read_log();

 private:
  BootMachine() = default;
  std::string tail(const Fd& file) const;

  Fd ram_;
  Fd serial_;
  Fd errors_;
  Fd log_;
  pid_t child_ = -1;
  Fd process_;
  std::optional<QmpClient> qmp_;
  std::uint64_t ram_bytes_ = 0;
  std::chrono::steady_clock::time_point started_;
  std::chrono::steady_clock::duration paused_{};
};

}  // namespace samepage::cli
