#include "core/bus_outbox.h"

#include <cerrno>
#include <system_error>
#include <utility>

#include <sys/eventfd.h>

namespace samepage {

Result<std::shared_ptr<BusOutbox>> BusOutbox::create(const BusLimits& limits) {
  Fd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return fail(Errc::kIo, "eventfd: " + std::generic_category().message(errno));
  return std::make_shared<BusOutbox>(limits, std::move(wake));
}

Result<void> BusOutbox::post(BusOutgoing message) {
  if (message.bytes.size() > limits_.message_bytes_max) {
    return fail(Errc::kInvalid, "a bus message of " + std::to_string(message.bytes.size()) +
                                    " bytes exceeds the limit of " +
                                    std::to_string(limits_.message_bytes_max));
  }
  const MutexLock lock(mutex_);
  if (closed_) return fail(Errc::kUnavailable, "the bus is closed");
  if (messages_.size() >= limits_.queue_messages_max ||
      bytes_ + message.bytes.size() > limits_.queue_bytes_max) {
    return fail(Errc::kUnavailable, "the bus's queue is full");
  }
  bytes_ += message.bytes.size();
  messages_.push_back(std::move(message));
  nudge();
  return {};
}

std::deque<BusOutgoing> BusOutbox::take() {
  const MutexLock lock(mutex_);
  eventfd_t count = 0;
  ::eventfd_read(wake_.get(), &count);
  bytes_ = 0;
  return std::exchange(messages_, {});
}

void BusOutbox::close() {
  const MutexLock lock(mutex_);
  closed_ = true;
  nudge();
}

bool BusOutbox::closed() const {
  const MutexLock lock(mutex_);
  return closed_;
}

void BusOutbox::nudge() const {
  ::eventfd_write(wake_.get(), 1);
}

}  // namespace samepage
