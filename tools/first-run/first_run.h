#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace samepage::first_run {

/// Who a VM is, as its host says (the firmware file opt/org.samepage/identity).
struct Identity {
  std::string uuid;
  std::string name;
  std::string role;  ///< "vm", or "leader": what a template is made of.
};

/// `text` is "UUID NAME ROLE" and then anything. kCorrupt: it is not, or the UUID is none.
Result<Identity> parse_identity(std::string_view text);

/// What became of one look at who this VM is.
enum class Outcome : std::uint8_t {
  kNothing,  ///< No guest of Samepage's, or all was done for this VM already.
  kLeader,   ///< It may become somebody when it is forked.
  kBecame,   ///< It is somebody of its own now.
};

/// What the step asks of the kernel and of other programs. kIo: that one refused; the message says
/// why.
class GuestSystem {
 public:
  virtual ~GuestSystem() = default;

  /// Mixes `secret` into the kernel's random pool and makes its generator draw from the pool, which
  /// it would do only a minute later by itself.
  virtual Result<void> reseed(std::string_view secret) = 0;

  /// Sets the wall clock, in UTC.
  virtual Result<void> set_clock(std::chrono::seconds since_epoch) = 0;
  virtual Result<void> set_host_name(const std::string& name) = 0;

  /// Runs a program, found on PATH, to its end. kIo: it cannot be started, or ended with another
  /// status than 0.
  virtual Result<void> run(const std::vector<std::string>& command) = 0;

  /// Returns when a network card has come that was not there when this object was made, or that no
  /// earlier call told of. May return without one. kIo: nobody would tell.
  virtual Result<void> wait_for_card() = 0;
  virtual void pause(std::chrono::seconds time) = 0;
};

/// Makes a VM that was forked from a template somebody of its own: random pool, clock, host name,
/// machine-id, SSH host keys, and what its owner adds (docs/guest.md).
///
/// Invariant: does nothing in a leader, nor when all was done for this VM already, so any number of
/// processes may run it as often as they like: a file lock below `root` lets one work and has the
/// others wait. By what others know the VM it is told apart before its owner's hooks run, and what
/// nobody waits for comes last.
class FirstRun {
 public:
  /// `system` must outlive it; every path is below `root`.
  FirstRun(std::filesystem::path root, GuestSystem& system)
      : root_(std::move(root)), system_(system) {}

  /// Looks once. Whatever fails is said on stderr and keeps nothing else from being done. kIo:
  /// something of the VM's identity could not be set, and the next run does all of it again; hooks
  /// and restarts of services do not count. kCorrupt: as parse_identity(). Where the VM became
  /// somebody, this ends kJournalDelay later.
  Result<Outcome> run();

  /// run(); and in a leader again whenever a network card has come, so that a fork, which goes on
  /// in here, has to start nothing. `looked` is called after the first look, which went well.
  /// Errors: as run() and GuestSystem::wait_for_card().
  Result<Outcome> stay(const std::function<void()>& looked);

  /// How long after a fork its journal is started again, for the new machine-id: it is much work,
  /// and other VMs that were forked with this one still have to answer.
  static constexpr std::chrono::seconds kJournalDelay{60};

 private:
  Result<Outcome> look();
  void follow(Outcome outcome);
  Result<void> become(const Identity& identity);
  Result<void> set_clock();
  Result<void> write(const std::string& path, std::string_view text) const;
  bool has_networks() const;
  void run_hooks(const Identity& identity);
  Result<void> make_ssh_keys();
  void restart(const char* unit);
  void attempt(const char* what, const Result<void>& done);

  const std::filesystem::path root_;
  GuestSystem& system_;
  bool failed_ = false;
};

}  // namespace samepage::first_run
