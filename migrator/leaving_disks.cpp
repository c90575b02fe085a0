#include "migrator/leaving_disks.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <optional>
#include <thread>
#include <utility>

#include <sys/prctl.h>

#include "core/log.h"
#include "core/mutex.h"
#include "migrator/auto_converge.h"

namespace samepage::migrator {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kHurriedRest{2};

Deadline in(std::chrono::milliseconds time) {
  return steady_clock::now() + time;
}

}  // namespace

/// One disk's way: offered, sent in rounds by its thread, handed over.
class LeavingDisks::Sender {
 public:
  Sender(const Options& options, std::unique_ptr<LeavingDisk> disk,
         const std::function<void(Error)>& on_failure)
      : options_(options), disk_(std::move(disk)), name_(disk_->name()), on_failure_(on_failure) {}
  ~Sender() { stop(); }

  Result<void> offer(const Dial& dial) {
    const auto words = TRY(disk_->offer());
    auto link = std::make_unique<DiskLink>(TRY(dial()));
    const Deadline deadline = in(options_.answer_max);
    TRY(link->send(DiskWord::kOffer, words, deadline));
    const DiskMessage answer = TRY(link->expect(DiskWord::kAnswer, deadline));
    TRY(disk_->begin(answer.body));
    const MutexLock lock(mutex_);
    if (stopped_) return fail(Errc::kUnavailable, "the migration was stopped");
    link_ = std::move(link);
    return {};
  }

  const std::string& name() const { return name_; }

  void begin() {
    thread_ = std::jthread([this] {
      ::prctl(PR_SET_NAME, "disk-leaves");
      auto sent = send_all();
      const MutexLock lock(mutex_);
      if (!sent) failure_ = std::move(sent).error().within("send disk " + name_);
      const bool is_news = failure_ && !stopped_;
      changed_.notify_all();
      if (is_news) on_failure_(*failure_);
    });
  }

  Result<void> wait_until_near(Deadline deadline) {
    const MutexLock lock(mutex_);
    while (!is_near_ && !failure_ && steady_clock::now() < deadline) {
      changed_.wait_until(mutex_, deadline);
    }
    if (failure_) return tl::unexpected(*failure_);
    if (!is_near_) return fail(Errc::kTimedOut, "the disk " + name_ + " was not across");
    return {};
  }

  void hurry() {
    const MutexLock lock(mutex_);
    hurries_ = true;
    changed_.notify_all();
  }

  void ask_hand_over() {
    const MutexLock lock(mutex_);
    hurries_ = true;
    stands_still_ = true;
    changed_.notify_all();
  }

  Result<void> await_hand_over(Deadline deadline) {
    const MutexLock lock(mutex_);
    while (!has_arrived_ && !failure_ && steady_clock::now() < deadline) {
      changed_.wait_until(mutex_, deadline);
    }
    if (failure_) return tl::unexpected(*failure_);
    if (!has_arrived_) {
      return fail(Errc::kTimedOut, "the rest of disk " + name_ + " was not across in time");
    }
    return {};
  }

  void stop() {
    const MutexLock lock(mutex_);
    stopped_ = true;
    if (link_) link_->shut_down();
    changed_.notify_all();
  }

  void finish() {
    stop();
    if (thread_.joinable()) thread_.join();
    disk_.reset();
  }

  std::uint64_t bytes() const { return bytes_; }
  unsigned rounds() const { return rounds_; }

 private:
  Result<void> send_all() {
    for (;;) {
      const bool is_still = stands_still();
      const auto began = steady_clock::now();
      const std::uint64_t sent = TRY(send_round());
      // What was written while the guest still ran has gone by now, and there was no more.
      if (is_still && sent == 0) return complete();
      if (!is_still) {
        TRY(link_->send(DiskWord::kRound, {}, in(options_.stall_max)));
        TRY(link_->expect(DiskWord::kFlushed, in(options_.stall_max)));
      }
      ++rounds_;
      const auto took = steady_clock::now() - began;
      const bool is_near = sent <= options_.near_bytes || took <= options_.near_time;
      if (!is_near) TRY(hold_writer(sent, took));
      TRY(rest(is_near));
    }
  }

  Result<void> hold_writer(std::uint64_t sent, steady_clock::duration took) {
    const auto limit = converge_.round_ended(sent, took);
    if (!limit || has_stopped()) return {};
    log_info("a guest writes faster than its disk is sent, and is held disk={} mib_per_s={}", name_,
             *limit >> 20U);
    is_held_ = true;
    return disk_->limit_writes(*limit);
  }

  /// What the guest has written must not wait for anything once the guest stands still.
  Result<void> free_writer() {
    if (!has_stopped() || !std::exchange(is_held_, false)) return {};
    return disk_->limit_writes(0);
  }

  Result<std::uint64_t> send_round() {
    std::uint64_t sent = 0;
    for (bool goes_on = true; goes_on;) {
      TRY(free_writer());
      const LeavingDisk::Parcel parcel = TRY(disk_->next());
      goes_on = !parcel.is_last;
      if (parcel.bytes.empty()) continue;
      auto taken = link_->send(DiskWord::kParcel, parcel.bytes, in(options_.stall_max));
      if (!taken) return tl::unexpected(why_refused(std::move(taken).error()));
      sent += parcel.disk_bytes;
      bytes_ += parcel.disk_bytes;
    }
    return sent;
  }

  /// A target that cannot go on says why before it breaks the connection.
  Error why_refused(Error broken) {
    auto said = link_->expect(DiskWord::kFlushed, in(options_.rest));
    if (said || said.error().code() == Errc::kTimedOut) return broken;
    return std::move(said).error();
  }

  Result<void> complete() {
    TRY(link_->send(DiskWord::kComplete, {}, in(options_.stall_max)));
    TRY(link_->expect(DiskWord::kArrived, in(options_.stall_max)));
    const MutexLock lock(mutex_);
    has_arrived_ = true;
    return {};
  }

  bool stands_still() {
    const MutexLock lock(mutex_);
    return stands_still_;
  }

  bool has_stopped() {
    const MutexLock lock(mutex_);
    return hurries_;
  }

  Result<void> rest(bool is_near) {
    const MutexLock lock(mutex_);
    is_near_ = is_near_ || is_near;
    changed_.notify_all();
    if (is_near && !stands_still_ && !stopped_) {
      changed_.wait_until(mutex_, in(hurries_ ? kHurriedRest : options_.rest));
    }
    if (stopped_) return fail(Errc::kUnavailable, "the migration was stopped");
    return {};
  }

  const Options options_;
  std::unique_ptr<LeavingDisk> disk_;  ///< The thread's, once that has begun.
  const std::string name_;
  const std::function<void(Error)> on_failure_;
  AutoConverge converge_;           ///< The thread's.
  bool is_held_ = false;            ///< The guest, by this. The thread's.
  std::unique_ptr<DiskLink> link_;  ///< Set once, under the mutex, before the thread.
  std::atomic<std::uint64_t> bytes_ = 0;
  std::atomic<unsigned> rounds_ = 0;
  Mutex mutex_;
  std::condition_variable_any changed_;
  bool is_near_ GUARDED_BY(mutex_) = false;
  bool hurries_ GUARDED_BY(mutex_) = false;
  bool stands_still_ GUARDED_BY(mutex_) = false;
  bool has_arrived_ GUARDED_BY(mutex_) = false;
  bool stopped_ GUARDED_BY(mutex_) = false;
  std::optional<Error> failure_ GUARDED_BY(mutex_);
  std::jthread thread_;
};

LeavingDisks::LeavingDisks(const Options& options, std::vector<std::unique_ptr<LeavingDisk>> disks,
                           std::function<void(Error)> on_failure)
    : hand_over_max_(options.hand_over_max) {
  for (auto& disk : disks) {
    senders_.push_back(std::make_unique<Sender>(options, std::move(disk), on_failure));
  }
}

LeavingDisks::~LeavingDisks() = default;

Result<void> LeavingDisks::begin(const Dial& dial) {
  if (senders_.size() > kMovingDisksMax) {
    return fail(Errc::kInvalid, "a VM with more than " + std::to_string(kMovingDisksMax) +
                                    " disks of the image store");
  }
  for (const auto& sender : senders_) {
    auto offered = sender->offer(dial);
    if (!offered) {
      return tl::unexpected(std::move(offered).error().within("move disk " + sender->name()));
    }
  }
  for (const auto& sender : senders_) sender->begin();
  return {};
}

Result<void> LeavingDisks::wait_until_near(Deadline deadline) {
  for (const auto& sender : senders_) TRY(sender->wait_until_near(deadline));
  return {};
}

void LeavingDisks::hurry() {
  for (const auto& sender : senders_) sender->hurry();
}

Result<void> LeavingDisks::hand_over() {
  const Deadline deadline = in(hand_over_max_);
  for (const auto& sender : senders_) sender->ask_hand_over();
  for (const auto& sender : senders_) TRY(sender->await_hand_over(deadline));
  return {};
}

void LeavingDisks::stop() {
  for (const auto& sender : senders_) sender->stop();
}

void LeavingDisks::finish() {
  for (const auto& sender : senders_) sender->finish();
}

LeavingDisks::Counters LeavingDisks::counters() const {
  Counters counters;
  for (const auto& sender : senders_) {
    counters.bytes += sender->bytes();
    counters.rounds = std::max(counters.rounds, sender->rounds());
  }
  return counters;
}

}  // namespace samepage::migrator
