#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/result.h"
#include "core/vm_control.h"
#include "migrator/boot_disks.h"
#include "migrator/template_shelf.h"

namespace samepage::migrator {

/// What the leader's state is worth waiting for.
struct ReadyWhen {
  enum class Kind : std::uint8_t {
    kSerial,  ///< `pattern`, an ECMAScript regular expression, matches on its serial line.
    kAgent,   ///< The guest's agent answers.
    kTime,    ///< `time` has passed.
  };
  Kind kind = Kind::kTime;
  std::string pattern;
  std::chrono::milliseconds time{0};
};

struct LeaderOrder {
  std::string name;                 ///< Of the template.
  std::string domain;               ///< The XML to boot a leader from.
  std::string image;                ///< What its disk stands on; empty: it has none of the store.
  std::uint64_t image_version = 0;  ///< 0: the newest.
  std::string hypervisor;
  ReadyWhen ready_when;
};

struct ForkOrder {
  VmIdentity identity;
  bool paused = false;  ///< Leave it asleep: it has not run a single instruction of its own.
};

struct ForkReport {
  std::chrono::milliseconds took{0};  ///< Until it ran, or lay there paused.
};

/// Boots leaders, freezes them into templates and forks VMs from those, all through stock libvirt
/// (docs/design-notes.md, "Forks on stock libvirt").
///
/// Invariant: a fork never runs on other RAM than its template's: its processors stand still until
/// it is certain that the hook has given it the template's file.
/// Nothing is left behind: whatever fails, or is killed, the half-made domain is ended, here or by
/// clean_up() at the next start.
/// Threads: every method may be called from any thread; each blocks its caller only.
/// Lifetime: borrows all that it is given.
class Forker {
 public:
  /// A leader that says it is ready often has to end what it began at its boot, and each fork would
  /// have to as well. So it is frozen once it uses less than this share of a processor; or kRestMax
  /// after it was ready, or right at the time that the order says.
  static constexpr double kRestShare = 0.2;
  static constexpr std::chrono::seconds kRestMax{15};

  Forker(VmControl& vms, TemplateShelf& shelf, BootDisks& disks, const Clock& clock)
      : vms_(vms), shelf_(shelf), disks_(disks), clock_(clock) {}

  /// Ends what a killed process was making. Errors as VmControl's.
  Result<void> clean_up();

  /// Boots a leader, waits until it is ready and has come to rest (kRestShare), and puts it on the
  /// shelf. `cancelled` is asked a few times a second. kTimedOut: not ready by the deadline.
  /// kUnavailable: cancelled, or the leader ended by itself, or there is no room. kInvalid: the
  /// domain can be no template.
  Result<std::shared_ptr<const ShelvedTemplate>> make_template(
      const LeaderOrder& order, Deadline deadline, const std::function<bool()>& cancelled);

  /// A VM of the template. kInvalid: libvirt refuses it, or does not call our hook.
  Result<ForkReport> fork(const ShelvedTemplate& shelved, const ForkOrder& order);

  /// The same VM from scratch, without the template. Errors as VmControl's and BootDisks'.
  Result<ForkReport> boot_cold(const TemplateState& state, const ForkOrder& order);

 private:
  Result<void> prepare_leader(const LeaderOrder& order, VmIdentity identity, TemplateState& state);
  Result<void> freeze(const VmIdentity& identity, const std::filesystem::path& ram,
                      TemplateState& state);
  Result<void> end(const VmIdentity& vm);
  void undo_boot(const VmIdentity& vm);
  Result<void> wait_until_ready(const LeaderOrder& order, const VmId& vm, Deadline deadline,
                                const std::function<bool()>& cancelled);
  Result<void> wait_for_rest(const VmId& vm, Deadline until,
                             const std::function<bool()>& cancelled);
  Result<std::function<Result<bool>()>> readiness(const ReadyWhen& when, const VmId& vm,
                                                  const std::string& serial);
  Result<TemplateState> describe(const LeaderOrder& order) const;
  Result<void> give_disk(VmIdentity& vm, const std::string& image, std::uint64_t version);
  Result<void> restore_fork(const ShelvedTemplate& shelved, const VmIdentity& vm);

  VmControl& vms_;
  TemplateShelf& shelf_;
  BootDisks& disks_;
  const Clock& clock_;
};

}  // namespace samepage::migrator
