#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <thread>

#include "core/hypervisor.h"
#include "core/mutex.h"
#include "migrator/byte_stream.h"
#include "migrator/intake_brake.h"
#include "migrator/relay.h"

namespace samepage::migrator {

/// Says to libvirt while it copies a guest what must be said at the right moment: how long the
/// guest may stand still; that it is time to switch to post-copy; that the copying is to be given
/// up. None of these is sure to be heard at the first time, so each is said until it is, or until
/// the copying is over.
///
/// QEMU stops the guest once what is left would take less than the downtime limit at the speed of
/// its last 100 ms. While pages pass that the target has, that speed says nothing of the pages
/// left. So the first pass over the memory has a limit that is as good as none. At its end QEMU is
/// held back until little is under way, and little may be from then on (IntakeBrake). The limit is
/// then such that QEMU leaves at most a few MiB at the fastest that it may believe in, until it has
/// forgotten the first pass; then it is what was asked for. Where QEMU measures rightly, it is so
/// at once.
///
/// Threads: every method may be called from any thread, begin() and finish() once; it says what it
/// says in threads of its own. Lifetime: outlives the streams and relays that it was given to.
class CopyPace final : public PassWatch {
 public:
  struct Options {
    VmId vm;
    std::chrono::milliseconds downtime_max{};  ///< Allowed once QEMU can be trusted with it.
    bool postcopy = false;
    std::chrono::milliseconds switch_look{};  ///< Between two looks whether to switch.
  };

  /// So short that QEMU does not find the guest ready to be switched over before its time: what
  /// libvirt is to begin with.
  static constexpr std::chrono::milliseconds kDowntimeNone{1};

  /// The first pass ends so many bytes before the memory's end.
  static constexpr std::uint64_t kPassEndBytes = 1U << 20U;
  /// Of the guest's memory, that QEMU may leave for the downtime while its speed is not true: what
  /// the link carries in some 40 ms, within these limits.
  static constexpr std::uint64_t kLeftBytesMin = 5U << 18U;
  static constexpr std::uint64_t kLeftBytesMax = 4U << 20U;
  /// From the time on at which little is under way, until QEMU has measured a speed without the
  /// first pass: a whole one of its 100 ms, and the rest of the one before.
  static constexpr std::chrono::milliseconds kUntilForgotten{250};

  /// The hypervisor is borrowed and outlives this.
  CopyPace(Options options, Hypervisor& hypervisor);
  ~CopyPace() override;
  CopyPace(const CopyPace&) = delete;
  CopyPace& operator=(const CopyPace&) = delete;

  /// libvirt is about to be asked. `emulated`: the guest is (emulation.h).
  void begin(bool emulated);

  /// A connection of QEMU's, whose reader is slowed down where that is better for the guest.
  std::unique_ptr<ByteStream> brake(std::unique_ptr<ByteStream> qemu);

  /// What the relay of the main connection tells of QEMU's passes; null where nobody asks.
  PassWatch* passes();

  void guest_stopped();

  /// The copying is to be given up.
  void cancel();

  /// It is over: nothing more is said.
  void end();

  /// end(), and returns when nothing is being said.
  void finish();

 private:
  enum class State : std::uint8_t { kCopying, kCancelling, kEnded };

  void first_pass(std::uint64_t bytes_left) override;
  void further_pass(std::uint64_t bytes) override;
  void speed_is_true(bool is_true) override;
  void delivered(std::uint64_t bytes, std::uint64_t link_bytes) override;
  void out_of_sight() override;

  // Each the body of a thread.
  void allow_downtime();
  void switch_to_postcopy();
  void press_cancel();

  bool allow(std::chrono::milliseconds time);
  std::chrono::milliseconds cautious_downtime() const;
  void enter(State state);
  bool wait_while(State state, std::chrono::milliseconds time);

  const Options options_;
  Hypervisor& hypervisor_;
  IntakeBrake brake_;
  bool emulated_ = false;  // Set before any relay begins.
  std::atomic<bool> speed_is_true_{false};
  std::atomic<std::uint64_t> link_bytes_{0};  ///< Under way in about 20 ms.
  Mutex mutex_;
  std::condition_variable_any changed_;
  State state_ GUARDED_BY(mutex_) = State::kCopying;
  std::jthread turning_;
  std::jthread cancelling_;
};

}  // namespace samepage::migrator
