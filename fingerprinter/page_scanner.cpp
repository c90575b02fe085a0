#include "fingerprinter/page_scanner.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "core/page.h"

namespace samepage::fingerprinter {
namespace {

using Duration = std::chrono::steady_clock::duration;

// One read: large enough to make system calls cheap, small enough to hash it out of the L2 cache.
constexpr std::uint64_t kBatchPages = 256;
// Reading over a short gap between runs beats another system call.
constexpr std::uint64_t kGapMax = 16;
constexpr Duration kPauseMin = std::chrono::milliseconds(10);
// Short enough to notice a stop soon.
constexpr Duration kPauseMax = std::chrono::milliseconds(200);

/// A piece of one run that lies within a batch.
struct Batch {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  std::vector<PageRun> populated;  // Within [first, first + count).
};

/// Cuts runs into batches that are read at once, gaps included.
std::vector<Batch> batches_of(const std::vector<PageRun>& runs) {
  std::vector<Batch> batches;
  for (PageRun run : runs) {
    while (run.count > 0) {
      const bool joins = !batches.empty() &&
                         run.first - (batches.back().first + batches.back().count) <= kGapMax &&
                         run.first - batches.back().first < kBatchPages;
      if (!joins) batches.push_back({run.first, 0, {}});
      Batch& batch = batches.back();
      const std::uint64_t count = std::min(run.count, batch.first + kBatchPages - run.first);
      batch.populated.push_back({run.first, count});
      batch.count = run.first + count - batch.first;
      run.first += count;
      run.count -= count;
    }
  }
  return batches;
}

/// Keeps the scan's busy time at its share of the time since it began.
class Pacer {
 public:
  Pacer(const ScanOptions& options, const Clock& clock)
      : options_(options), clock_(clock), begin_(clock.now()) {}

  void pause_while_due() {
    for (auto due = debt(); due >= kPauseMin && !options_.stop.stop_requested(); due = debt()) {
      const auto before = clock_.now();
      pause(std::min(due, kPauseMax));
      paused_ += clock_.now() - before;
    }
  }

  double seconds() const { return std::chrono::duration<double>(clock_.now() - begin_).count(); }

 private:
  Duration debt() const {
    const auto elapsed = clock_.now() - begin_;
    const auto busy = elapsed - paused_;
    return std::chrono::duration_cast<Duration>(busy / options_.cpu_share) - elapsed;
  }

  void pause(Duration duration) const {
    if (options_.pause) {
      options_.pause(duration);
    } else {
      std::this_thread::sleep_for(duration);
    }
  }

  const ScanOptions& options_;
  const Clock& clock_;
  const std::chrono::steady_clock::time_point begin_;
  Duration paused_{0};
};

class Scanner {
 public:
  Scanner(GuestMemory& memory, HashSeed seed)
      : memory_(memory), seed_(seed), buffer_(kBatchPages * kPageSize) {
    found_.pages = memory.pages();
  }

  Result<void> take(const Batch& batch) {
    const auto bytes = std::span(buffer_).first(batch.count * kPageSize);
    auto done = memory_.read(batch.first, bytes);
    if (!done && done.error().code() == Errc::kIo) return take_page_by_page(batch);
    if (!done) return done;
    for (const PageRun& run : batch.populated) {
      const std::size_t offset = (run.first - batch.first) * kPageSize;
      note(run, bytes.subspan(offset, run.count * kPageSize));
    }
    return {};
  }

  Scan finish(double seconds) && {
    found_.seconds = seconds;
    return std::move(found_);
  }

 private:
  Result<void> take_page_by_page(const Batch& batch) {
    const auto bytes = std::span(buffer_).first(kPageSize);
    for (const PageRun& run : batch.populated) {
      for (std::uint64_t page = run.first; page < run.first + run.count; ++page) {
        auto done = memory_.read(page, bytes);
        if (!done && done.error().code() != Errc::kIo) return done;
        if (done) note({page, 1}, bytes);
      }
    }
    return {};
  }

  void note(const PageRun& run, std::span<const std::byte> bytes) {
    for (std::uint64_t i = 0; i < run.count; ++i) {
      const auto page = bytes.subspan(i * kPageSize).first<kPageSize>();
      if (is_zero(page)) {
        ++found_.zero;
      } else {
        found_.hashed.push_back({run.first + i, hash_page(page, seed_)});
      }
    }
  }

  GuestMemory& memory_;
  const HashSeed seed_;
  std::vector<std::byte> buffer_;
  Scan found_;
};

}  // namespace

Result<Scan> scan(GuestMemory& memory, HashSeed seed, const ScanOptions& options) {
  if (!(options.cpu_share > 0 && options.cpu_share <= 1)) {
    return fail(Errc::kInvalid, "cpu_share must be within 0 and 1");
  }
  const SystemClock system_clock;
  Pacer pacer(options, options.clock != nullptr ? *options.clock : system_clock);
  Scanner scanner(memory, seed);

  const std::vector<PageRun> runs = TRY(memory.populated());
  for (const Batch& batch : batches_of(runs)) {
    if (options.stop.stop_requested()) return fail(Errc::kUnavailable, "the scan was stopped");
    TRY(scanner.take(batch));
    pacer.pause_while_due();
  }
  return std::move(scanner).finish(pacer.seconds());
}

}  // namespace samepage::fingerprinter
