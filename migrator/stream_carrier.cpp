#include "migrator/stream_carrier.h"

#include <utility>

namespace samepage::migrator {

StreamCarrier::StreamCarrier(StreamCarrierParts parts)
    : parts_(std::move(parts)), thread_([this] {
        const auto ended = carry();
        // What breaks behind the last byte is how connections end.
        parts_.on_end(delivered() ? Result<void>() : ended);
      }) {}

StreamCarrier::~StreamCarrier() {
  stop();
}

void StreamCarrier::stop() {
  const MutexLock lock(mutex_);
  stopped_ = true;
  if (relay_) relay_->stop();
}

bool StreamCarrier::delivered() const {
  const MutexLock lock(mutex_);
  return relay_ && relay_->delivered();
}

RelayCounters StreamCarrier::counters() const {
  const MutexLock lock(mutex_);
  return relay_ ? relay_->counters() : RelayCounters{};
}

Result<void> StreamCarrier::carry() {
  auto qemu = TRY(parts_.open_qemu());
  auto peer = TRY(parts_.open_peer());
  auto relay = TRY(parts_.make_relay(RelayEnds{.qemu = *qemu, .peer = *peer}));
  RelayHalf& running = *relay;
  {
    const MutexLock lock(mutex_);
    if (stopped_) return fail(Errc::kUnavailable, "the stream was stopped before it began");
    qemu_ = std::move(qemu);
    peer_ = std::move(peer);
    relay_ = std::move(relay);
  }
  return running.run();
}

}  // namespace samepage::migrator
