#include "tools/samepaged/departing_pages.h"

#include <utility>

#include <sys/resource.h>
#include <unistd.h>

namespace samepage::agent {
namespace {

constexpr int kGiveWay = 10;  // nice(1)

void set_nice(int thread_id, int nice) {
  static_cast<void>(::setpriority(PRIO_PROCESS, static_cast<id_t>(thread_id), nice));
}

}  // namespace

DepartingPages::DepartingPages(std::unique_ptr<pagecache::CheckpointWriter> writer)
    : writer_(std::move(writer)), thread_([this] { write_all(); }) {}

DepartingPages::~DepartingPages() {
  stop();
  thread_.join();
}

void DepartingPages::saw(const migrator::CutStretch& stretch) {
  Waiting waiting{.bytes = stretch.bytes, .pages = {}};
  const std::byte* front = stretch.bytes.bytes.data();
  for (const auto& [token, older] : stretch.tokens) {
    if (token.kind != migrator::StreamToken::Kind::kPage || !token.in_main_block) continue;
    waiting.pages.push_back({.number = token.header / kPageSize,
                             .offset = static_cast<std::size_t>(token.page().data() - front)});
  }
  if (waiting.pages.empty()) return;
  const MutexLock lock(mutex_);
  const std::size_t size = stretch.bytes.bytes.size();
  if (stopped_ || waiting_bytes_ + size > kWaitingBytesMax) return;
  waiting_bytes_ += size;
  waiting_.push_back(std::move(waiting));
  changed_.notify_all();
}

void DepartingPages::guest_left(Keep keep) {
  const MutexLock lock(mutex_);
  keep_ = std::move(keep);
  changed_.notify_all();
}

// On a busy machine a thread that gives way may not run for long; nobody may wait for it then.
void DepartingPages::stop() {
  const MutexLock lock(mutex_);
  stopped_ = true;
  if (thread_id_ != 0) set_nice(thread_id_, 0);
  changed_.notify_all();
}

std::optional<DepartingPages::Waiting> DepartingPages::next() {
  const MutexLock lock(mutex_);
  while (!stopped_ && !keep_ && waiting_bytes_ <= kPatientBytes) changed_.wait(mutex_);
  if (stopped_ || waiting_.empty()) return std::nullopt;
  Waiting oldest = std::move(waiting_.front());
  waiting_.pop_front();
  waiting_bytes_ -= oldest.bytes.bytes.size();
  return oldest;
}

void DepartingPages::write_all() {
  {
    const MutexLock lock(mutex_);
    thread_id_ = ::gettid();
    if (!stopped_) set_nice(thread_id_, kGiveWay);
  }
  while (const auto stretch = next()) {
    for (const auto& [number, offset] : stretch->pages) {
      writer_->put(number, stretch->bytes.bytes.subspan(offset).first<kPageSize>());
    }
  }
  Keep keep;
  {
    const MutexLock lock(mutex_);
    keep = std::move(keep_);
    stopped_ = true;  // Whatever else comes is not kept.
    waiting_.clear();
    set_nice(std::exchange(thread_id_, 0), 0);
  }
  if (keep) keep(writer_->finish());
  writer_.reset();
  done_ = true;
}

}  // namespace samepage::agent
