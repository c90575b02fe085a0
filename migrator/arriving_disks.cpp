#include "migrator/arriving_disks.h"

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <utility>

#include <sys/prctl.h>

#include "migrator/disk_channel.h"

namespace samepage::migrator {
namespace {

constexpr std::chrono::seconds kSendMax{10};

Deadline soon() {
  return std::chrono::steady_clock::now() + kSendMax;
}

}  // namespace

class ArrivingDisks::Receiver {
 public:
  Receiver(const ArrivingDisks& set, std::unique_ptr<ByteStream> stream)
      : set_(set), link_(std::move(stream)), thread_([this] {
          ::prctl(PR_SET_NAME, "disk-arrives");
          const auto received = receive();
          if (received) return link_.finish();
          link_.refuse(received.error(), soon());
          link_.discard(soon());
          link_.shut_down();
          if (!stopped_) set_.on_failure_(received.error());
        }) {}
  ~Receiver() { stop(); }

  void stop() {
    stopped_ = true;
    link_.shut_down();
  }
  void finish() {
    stop();
    if (thread_.joinable()) thread_.join();
  }
  bool has_arrived() const { return has_arrived_; }

 private:
  Result<void> receive() {
    const DiskMessage offer = TRY(link_.expect(DiskWord::kOffer, set_.deadline_));
    if (!set_.expect_) return fail(Errc::kInvalid, "this host keeps no disks of an image store");
    const auto disk = TRY(set_.expect_(offer.body));
    TRY(link_.send(DiskWord::kAnswer, disk->answer(), soon()));
    for (;;) {
      const DiskMessage message = TRY(link_.receive(set_.deadline_));
      switch (message.word) {
        case DiskWord::kParcel:
          TRY(disk->put(message.body));
          break;
        case DiskWord::kRound:
          TRY(disk->flush());
          TRY(link_.send(DiskWord::kFlushed, {}, soon()));
          break;
        case DiskWord::kComplete:
          TRY(disk->complete());
          has_arrived_ = true;
          return link_.send(DiskWord::kArrived, {}, soon());
        default:
          return fail(Errc::kCorrupt, "a word about a disk that no source says");
      }
    }
  }

  const ArrivingDisks& set_;
  DiskLink link_;
  std::atomic<bool> has_arrived_ = false;
  std::atomic<bool> stopped_ = false;
  std::jthread thread_;
};

ArrivingDisks::ArrivingDisks(ExpectDisk expect, Deadline deadline,
                             std::function<void(Error)> on_failure)
    : expect_(std::move(expect)), deadline_(deadline), on_failure_(std::move(on_failure)) {}

ArrivingDisks::~ArrivingDisks() {
  stop();
}

void ArrivingDisks::add(std::unique_ptr<ByteStream> stream) {
  const MutexLock lock(mutex_);
  if (stopped_ || receivers_.size() >= kMovingDisksMax) return;
  receivers_.push_back(std::make_unique<Receiver>(*this, std::move(stream)));
}

bool ArrivingDisks::have_arrived() const {
  const MutexLock lock(mutex_);
  return std::ranges::all_of(receivers_, [](const auto& one) { return one->has_arrived(); });
}

void ArrivingDisks::finish() {
  stop();
  // None is added any more, and none removed.
  const MutexLock lock(mutex_);
  for (const auto& receiver : receivers_) receiver->finish();
}

void ArrivingDisks::stop() {
  const MutexLock lock(mutex_);
  stopped_ = true;
  for (const auto& receiver : receivers_) receiver->stop();
}

}  // namespace samepage::migrator
