#include "migrator/link_meter.h"

#include <algorithm>

#include "core/check.h"

namespace samepage::migrator {
namespace {

// What is under way beyond the round trip. QEMU's own socket would hold more.
constexpr std::chrono::duration<double> kQueueMax{0.02};

// Smaller batches take their time for other reasons than their size.
constexpr std::size_t kTellingBytes = 16U << 10U;

// Of the busy time that is remembered.
constexpr double kMemorySeconds = 0.2;

}  // namespace

void LinkMeter::sent(std::size_t bytes, Time now) {
  under_way_.push_back({.bytes = bytes, .at = now, .alone = under_way_.empty()});
}

void LinkMeter::arrived(Time now) {
  CHECK(!under_way_.empty());
  const Sent arrived = under_way_.front();
  under_way_.pop_front();
  const std::chrono::duration<double> way = now - arrived.at;
  if (arrived.alone && (!round_trip_known_ || way < round_trip_)) {
    round_trip_ = way;
    round_trip_known_ = true;
  }
  const std::chrono::duration<double> busy = now - std::max(arrived.at, last_arrival_);
  last_arrival_ = now;
  // What was under way alone took its time to arrive and to be answered for, not to be carried.
  if (arrived.alone || arrived.bytes < kTellingBytes) return;
  bytes_ += static_cast<double>(arrived.bytes);
  busy_seconds_ += busy.count();
  if (busy_seconds_ < kMemorySeconds) return;
  bytes_ *= 0.5;
  busy_seconds_ *= 0.5;
}

double LinkMeter::bytes_per_second() const {
  return busy_seconds_ > 0 ? bytes_ / busy_seconds_ : 0;
}

std::size_t LinkMeter::window() const {
  const double rate = bytes_per_second();
  if (rate <= 0) return kWindowFirst;
  const double bytes = rate * (round_trip_ + kQueueMax).count();
  return std::max(kWindowMin, static_cast<std::size_t>(bytes));
}

}  // namespace samepage::migrator
