#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <stop_token>
#include <vector>

#include "core/clock.h"
#include "core/page_hash.h"
#include "core/result.h"
#include "fingerprinter/frame_hashes.h"
#include "fingerprinter/guest_memory.h"

namespace samepage::fingerprinter {

struct ScannedPage {
  std::uint64_t page = 0;
  PageHash hash;
};

/// What one pass over a guest's RAM found. Pages that change while it runs are hashed as they were
/// at some moment of the pass; users treat every hash as a hint.
struct Scan {
  std::uint64_t pages = 0;          ///< The guest's RAM, absent pages included.
  std::uint64_t zero = 0;           ///< Populated, but every byte is zero.
  std::vector<PageRun> zero_runs;   ///< The same pages, rising.
  std::vector<ScannedPage> hashed;  ///< Populated and not zero, by rising page number.
  double seconds = 0;               ///< Pauses included.
  std::uint64_t pages_read = 0;     ///< The others were known by their frames.
};

struct ScanOptions {
  /// Of one core, 0 < share <= 2: below 1 the scan pauses in between; above 1 a second thread reads
  /// ahead, into a second buffer, what cannot be hashed where it lies.
  double cpu_share = 1.0;
  std::stop_token stop{};        ///< Ends the scan at its next batch.
  const Clock* clock = nullptr;  ///< Borrowed; null: the system's.

  /// Pauses; empty: this thread sleeps.
  std::function<void(std::chrono::nanoseconds)> pause{};

  /// Of this pass over the host, borrowed; null: the scan keeps its own.
  FrameHashes* frames = nullptr;
};

/// Hashes every populated page with `seed`. A page that cannot be read (swapped out meanwhile) is
/// left out; one whose frame was hashed in this pass is not read again. kNotFound: the guest ended
/// during the scan. kUnavailable: it was stopped. kInvalid: `cpu_share` is out of range.
Result<Scan> scan(GuestMemory& memory, HashSeed seed, const ScanOptions& options = {});

/// The same for the given populated runs only, rising.
Result<Scan> scan_runs(GuestMemory& memory, std::span<const PageRun> runs, HashSeed seed,
                       const ScanOptions& options = {});

}  // namespace samepage::fingerprinter
