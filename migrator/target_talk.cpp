#include "migrator/target_talk.h"

#include <utility>

namespace samepage::migrator {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kSignalMax{5'000};

}  // namespace

Result<void> TargetTalk::open(std::unique_ptr<ByteStream> channel, Deadline deadline) {
  auto link = std::make_unique<SignalLink>(std::move(channel));
  const Signal first = TRY(link->receive(deadline));
  if (first.kind != SignalKind::kReady) {
    return fail(Errc::kUnavailable, "the target is not ready: " + first.text);
  }
  link_ = std::move(link);
  return {};
}

void TargetTalk::listen(Deadline deadline) {
  thread_ = std::jthread([this, deadline] { hear_all(deadline); });
}

Result<void> TargetTalk::send(const Signal& signal) {
  if (!link_) return fail(Errc::kUnavailable, "the target was never reached");
  return link_->send(signal, steady_clock::now() + kSignalMax);
}

void TargetTalk::send_last(const Signal& signal, std::chrono::milliseconds wait) {
  const bool is_heard = send(signal) && thread_.joinable();
  const MutexLock lock(mutex_);
  const Deadline deadline = steady_clock::now() + wait;
  while (is_heard && !has_ended_ && steady_clock::now() < deadline) {
    changed_.wait_until(mutex_, deadline);
  }
}

std::optional<steady_clock::time_point> TargetTalk::resumed_at() const {
  const MutexLock lock(mutex_);
  return resumed_at_;
}

void TargetTalk::shut_down() {
  if (link_) link_->shut_down();
}

void TargetTalk::close() {
  if (link_) link_->finish();
  shut_down();
  if (thread_.joinable()) thread_.join();
}

void TargetTalk::hear_all(Deadline deadline) {
  Error end = link_->receive_all(deadline, [this](const Signal& signal) { return hear(signal); });
  on_event_(source::TargetLost{std::move(end).within("hear from the target")});
  const MutexLock lock(mutex_);
  has_ended_ = true;
  changed_.notify_all();
}

Result<void> TargetTalk::hear(const Signal& signal) {
  switch (signal.kind) {
    case SignalKind::kResumed: {
      const MutexLock lock(mutex_);
      resumed_at_ = steady_clock::now();
      on_event_(source::TargetResumed{});
      return {};
    }
    case SignalKind::kRefused:
      on_event_(source::TargetRefused{Error(Errc::kUnavailable, "the target: " + signal.text)});
      return {};
    case SignalKind::kCleared:
      return fail(Errc::kUnavailable, "the target has cleared its copy");
    default:
      return fail(Errc::kCorrupt, "a signal that no target sends");
  }
}

}  // namespace samepage::migrator
