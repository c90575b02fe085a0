#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>

namespace samepage::migrator {

/// Measures the way to the target and back by what is sent and what is said to have arrived, and
/// says how much may be under way: as much as keeps the way busy, and little more, because QEMU
/// takes all of it for delivered when it estimates the downtime. A pure function of what it is
/// told. Threads: one at a time.
class LinkMeter {
 public:
  using Time = std::chrono::steady_clock::time_point;

  /// Until the rate is known, and at least: less would leave the link idle on a busy machine, and
  /// make it look slow.
  static constexpr std::size_t kWindowFirst = 4U << 20U;
  static constexpr std::size_t kWindowMin = 1U << 20U;

  void sent(std::size_t bytes, Time now);

  /// The oldest that was sent has arrived.
  void arrived(Time now);

  /// Of the way while several batches were under way that are large enough to tell; 0: not known
  /// yet.
  double bytes_per_second() const;

  /// The shortest time from sending to the news of the arrival that was seen.
  std::chrono::duration<double> round_trip() const { return round_trip_; }

  /// How many bytes may be under way.
  std::size_t window() const;

 private:
  struct Sent {
    std::size_t bytes = 0;
    Time at;
    bool alone = false;  ///< Nothing else was under way.
  };

  std::deque<Sent> under_way_;
  Time last_arrival_;
  std::chrono::duration<double> round_trip_{0};
  bool round_trip_known_ = false;
  double bytes_ = 0;  ///< That arrived in busy_seconds_, the older ones counting less.
  double busy_seconds_ = 0;
};

}  // namespace samepage::migrator
