#include "fingerprinter/page_scanner.h"

#include <algorithm>
#include <array>
#include <semaphore>
#include <thread>
#include <utility>

#include "core/page.h"

namespace samepage::fingerprinter {
namespace {

using Duration = std::chrono::steady_clock::duration;

// One read: large enough to make system calls cheap, small enough to hash it out of the L2 cache.
constexpr std::uint64_t kBatchPages = 256;
// What is looked at where it lies needs no place in a cache.
constexpr std::uint64_t kViewPages = GuestMemory::kRunsSpanMax;
constexpr Duration kPauseMin = std::chrono::milliseconds(10);
// Short enough to notice a stop soon.
constexpr Duration kPauseMax = std::chrono::milliseconds(200);

/// Populated runs that are read at once: at most kBatchPages pages, and not far apart. Or one run
/// of at most kViewPages that is looked at where it lies.
using Batch = std::vector<PageRun>;

void append_page(std::vector<PageRun>& runs, std::uint64_t page) {
  if (!runs.empty() && runs.back().first + runs.back().count == page) {
    ++runs.back().count;
  } else {
    runs.push_back({page, 1});
  }
}

std::uint64_t pages_in(std::span<const PageRun> runs) {
  std::uint64_t pages = 0;
  for (const PageRun& run : runs) pages += run.count;
  return pages;
}

std::vector<Batch> batches_of(std::span<const PageRun> runs, bool mapped) {
  std::vector<Batch> batches;
  std::uint64_t room = 0;
  for (PageRun run : runs) {
    while (run.count > 0) {
      const bool near = !mapped && !batches.empty() &&
                        run.first - batches.back().front().first < GuestMemory::kRunsSpanMax;
      if (!near || room == 0) {
        batches.emplace_back();
        room = mapped ? kViewPages : kBatchPages;
      }
      Batch& batch = batches.back();
      const std::uint64_t begin = batch.empty() ? run.first : batch.front().first;
      const std::uint64_t count =
          std::min({run.count, room, begin + GuestMemory::kRunsSpanMax - run.first});
      batch.push_back({run.first, count});
      run.first += count;
      run.count -= count;
      room -= count;
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
    const double share = std::min(options_.cpu_share, 1.0);
    return std::chrono::duration_cast<Duration>(busy / share) - elapsed;
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

/// A batch on its way from the guest to the hashes.
struct Load {
  std::vector<std::uint64_t> frames;  ///< One for each page; 0: the guest's own.
  Batch unread;                       ///< Not known by their frames.
  std::span<const std::byte> view;    ///< The whole batch, where it lies; or empty:
  std::vector<std::byte> copy;        ///< the unread pages, one behind the other.
  std::vector<bool> missing;          ///< Of the unread pages; empty: all were read.
};

/// Gets the bytes of batches.
class Loader {
 public:
  Loader(GuestMemory& memory, const FrameHashes& known) : memory_(memory), known_(known) {}

  Result<void> load(const Batch& batch, Load& load) const {
    load.missing.clear();
    load.unread = batch;
    load.view = {};
    if (batch.size() == 1) load.view = TRY(memory_.view(batch.front()));
    if (!load.view.empty()) return {};
    load.frames.assign(pages_in(batch), 0);
    TRY(leave_out_known(batch, load));
    load.copy.resize(pages_in(load.unread) * kPageSize);
    auto done = memory_.read_runs(load.unread, load.copy);
    if (!done && done.error().code() == Errc::kIo) return load_page_by_page(load);
    return done;
  }

 private:
  Result<void> leave_out_known(const Batch& batch, Load& load) const {
    const std::uint64_t begin = batch.front().first;
    std::array<std::uint64_t, GuestMemory::kRunsSpanMax> frames{};
    const auto span = std::span(frames).first(batch.back().first + batch.back().count - begin);
    TRY(memory_.shared_frames(begin, span));
    load.unread.clear();
    std::size_t next = 0;
    for (const PageRun& run : batch) {
      for (std::uint64_t page = run.first; page < run.first + run.count; ++page) {
        const std::uint64_t frame = span[page - begin];
        load.frames[next++] = frame;
        if (frame != 0 && known_.find(frame)) continue;
        append_page(load.unread, page);
      }
    }
    return {};
  }

  Result<void> load_page_by_page(Load& load) const {
    auto rest = std::span(load.copy);
    for (const PageRun& run : load.unread) {
      for (std::uint64_t page = run.first; page < run.first + run.count; ++page) {
        auto done = memory_.read(page, rest.first(kPageSize));
        if (!done && done.error().code() != Errc::kIo) return done;
        load.missing.push_back(!done);
        rest = rest.subspan(kPageSize);
      }
    }
    return {};
  }

  GuestMemory& memory_;
  const FrameHashes& known_;
};

constexpr std::array<std::byte, kPageSize> kZeroPage{};

/// Turns the bytes of batches into hashes.
class Hasher {
 public:
  Hasher(std::uint64_t pages, std::uint64_t populated, HashSeed seed, FrameHashes& known)
      : hash_(seed), zero_hash_(hash_page(kZeroPage, seed)), known_(known) {
    found_.pages = pages;
    found_.hashed.reserve(populated);
  }

  void take(const Batch& batch, const Load& load) {
    const std::span<const std::byte> bytes = load.view.empty() ? load.copy : load.view;
    hashes_.resize(bytes.size() / kPageSize);
    hash_.hash(bytes, hashes_);
    if (!load.view.empty()) return take_view(batch.front().first, bytes);
    std::size_t index = 0;
    std::size_t read = 0;
    auto unread = load.unread.begin();
    for (const PageRun& run : batch) {
      for (std::uint64_t page = run.first; page < run.first + run.count; ++page, ++index) {
        while (unread != load.unread.end() && unread->first + unread->count <= page) ++unread;
        if (unread == load.unread.end() || unread->first > page) {
          // Nothing leaves FrameHashes, so what was known when the batch was loaded still is.
          note(page, *known_.find(load.frames[index]));
          continue;
        }
        const auto content = bytes.subspan(read * kPageSize).first<kPageSize>();
        if (load.missing.empty() || !load.missing[read]) {
          look(page, content, hashes_[read], load.frames[index]);
        }
        ++read;
      }
    }
  }

  Scan finish(double seconds) && {
    found_.seconds = seconds;
    return std::move(found_);
  }

 private:
  /// The whole batch has been looked at where it lies, and shares no frames with others.
  void take_view(std::uint64_t first, std::span<const std::byte> bytes) {
    found_.pages_read += hashes_.size();
    for (std::size_t i = 0; i < hashes_.size(); ++i) {
      if (hashes_[i] == zero_hash_ && is_zero(bytes.subspan(i * kPageSize).first<kPageSize>())) {
        note(first + i, {.hash = {}, .zero = true});
      } else {
        found_.hashed.push_back({first + i, hashes_[i]});
      }
    }
  }

  void look(std::uint64_t page, PageView bytes, PageHash hash, std::uint64_t frame) {
    ++found_.pages_read;
    // The hash has read the page already; only what may be zeros is compared with them.
    const bool zero = hash == zero_hash_ && is_zero(bytes);
    const FrameHashes::Content content{zero ? PageHash{} : hash, zero};
    if (frame != 0) known_.add(frame, content);
    note(page, content);
  }

  void note(std::uint64_t page, const FrameHashes::Content& content) {
    if (content.zero) {
      ++found_.zero;
      append_page(found_.zero_runs, page);
    } else {
      found_.hashed.push_back({page, content.hash});
    }
  }

  const PageHasher hash_;
  const PageHash zero_hash_;
  std::vector<PageHash> hashes_;  ///< Of the pages of a load.
  FrameHashes& known_;
  Scan found_;
};

/// Loads one batch ahead of the one that is hashed, on a thread of its own.
class ReadAhead {
 public:
  ReadAhead(const Loader& loader, std::span<const Batch> batches)
      : thread_([this, &loader, batches](const std::stop_token& stop) {
          for (std::size_t i = 0; i < batches.size(); ++i) {
            empty_.acquire();
            if (stop.stop_requested()) return;
            Slot& slot = slots_[i % slots_.size()];
            slot.done = loader.load(batches[i], slot.load);
            const bool failed = !slot.done;
            full_.release();
            if (failed) return;
          }
        }) {}
  ~ReadAhead() {
    thread_.request_stop();
    empty_.release();
  }
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  /// The next batch; valid until release().
  Result<const Load*> acquire() {
    full_.acquire();
    const Slot& slot = slots_[next_++ % slots_.size()];
    if (!slot.done) return tl::unexpected(slot.done.error());
    return &slot.load;
  }
  void release() { empty_.release(); }

 private:
  struct Slot {
    Load load;
    Result<void> done;
  };
  std::array<Slot, 2> slots_;
  std::counting_semaphore<8> full_{0};
  std::counting_semaphore<8> empty_{2};
  std::size_t next_ = 0;
  std::jthread thread_;  // Last: it uses all of the above.
};

tl::unexpected<Error> stopped() {
  return fail(Errc::kUnavailable, "the scan was stopped");
}

Result<void> run_ahead(std::span<const Batch> batches, const Loader& loader, Hasher& hasher,
                       const ScanOptions& options) {
  ReadAhead ahead(loader, batches);
  for (const Batch& batch : batches) {
    if (options.stop.stop_requested()) return stopped();
    hasher.take(batch, *TRY(ahead.acquire()));
    ahead.release();
  }
  return {};
}

Result<void> run_alone(std::span<const Batch> batches, const Loader& loader, Hasher& hasher,
                       const ScanOptions& options, Pacer& pacer) {
  Load load;
  for (const Batch& batch : batches) {
    if (options.stop.stop_requested()) return stopped();
    TRY(loader.load(batch, load));
    hasher.take(batch, load);
    pacer.pause_while_due();
  }
  return {};
}

}  // namespace

Result<Scan> scan(GuestMemory& memory, HashSeed seed, const ScanOptions& options) {
  const std::vector<PageRun> runs = TRY(memory.populated());
  return scan_runs(memory, runs, seed, options);
}

Result<Scan> scan_runs(GuestMemory& memory, std::span<const PageRun> runs, HashSeed seed,
                       const ScanOptions& options) {
  if (!(options.cpu_share > 0 && options.cpu_share <= 2)) {
    return fail(Errc::kInvalid, "cpu_share must be within 0 and 2");
  }
  const SystemClock system_clock;
  Pacer pacer(options, options.clock != nullptr ? *options.clock : system_clock);
  FrameHashes own;
  FrameHashes& known = options.frames != nullptr ? *options.frames : own;
  const Loader loader(memory, known);
  bool mapped = false;
  if (!runs.empty()) mapped = !TRY(memory.view({runs.front().first, 1})).empty();
  const std::vector<Batch> batches = batches_of(runs, mapped);
  Hasher hasher(memory.pages(), pages_in(runs), seed, known);
  if (options.cpu_share > 1 && !mapped) {
    TRY(run_ahead(batches, loader, hasher, options));
  } else {
    TRY(run_alone(batches, loader, hasher, options, pacer));
  }
  return std::move(hasher).finish(pacer.seconds());
}

}  // namespace samepage::fingerprinter
