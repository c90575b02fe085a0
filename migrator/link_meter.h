#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>

namespace samepage::migrator {

/// Measures the way to the target and back by what is sent and acknowledged, and says how much may
/// be under way: as much as keeps the way busy, and little more, because QEMU takes all of it for
/// delivered when it estimates the downtime.
/// A pure function of what it is told. Threads: one at a time.
class LinkMeter {
 public:
  using Time = std::chrono::steady_clock::time_point;

  /// Until the rate is known, and at least.
  static constexpr std::size_t kWindowFirst = 1U << 20U;
  static constexpr std::size_t kWindowMin = 256U << 10U;

  void sent(std::size_t bytes, Time now);

  /// The oldest that was sent has arrived.
  void acknowledged(Time now);

  /// Of the way while it was busy with batches large enough to tell; 0: not known yet.
  double bytes_per_second() const;

  /// The shortest time from sending to acknowledgement that was seen.
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
