#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "core/result.h"
#include "migrator/byte_stream.h"

namespace samepage::migrator {

/// The most batches that a source may have unacknowledged, and so that a target must hold.
inline constexpr std::size_t kBatchesInFlightMax = 64;

/// How long a relay waits and how much it holds. The two ends need not have the same.
struct RelayOptions {
  /// 1 to kBatchesInFlightMax; at most 1 MiB of memory each.
  std::size_t batches_in_flight_max = kBatchesInFlightMax;

  /// Bytes under way between the relays, at least one batch; fewer when the link needs fewer.
  std::size_t wire_bytes_in_flight_max = 32U << 20U;

  /// Of the stream that went before, kept to copy pages from and to send differences to. The
  /// smaller one of both ends counts.
  std::uint64_t history_bytes_max = 256U << 20U;

  /// Threads that encode or rebuild batches; 0: one for each processor, at most 4.
  std::size_t workers = 0;

  /// A batch is sent as soon as QEMU has been silent for `flush_after`, or after `batch_age_max`;
  /// a record of which QEMU has written only a part, after `batch_age_max`.
  std::chrono::microseconds flush_after{1'000};
  std::chrono::microseconds batch_age_max{10'000};

  /// A peer that should answer or take bytes, and does not for so long, has failed.
  std::chrono::milliseconds stall_max{30'000};

  /// QEMU may say nothing for so long, for instance while it waits for its disks.
  std::chrono::milliseconds quiet_max{120'000};

  int zstd_level_max = 3;  ///< 1 to 19: the hardest that a slow link may choose.
};

/// `options.workers`, or what it stands for on this machine.
std::size_t worker_count(const RelayOptions& options);

/// kInvalid: a field is out of its range.
Result<void> check(const RelayOptions& options);

/// Hears from a source how QEMU goes through the guest's memory proper, in the thread that reads
/// it, before more is read.
class PassWatch {
 public:
  virtual ~PassWatch() = default;

  /// In the first pass: so many bytes from the page that came to the memory's end. Not told of
  /// multifd's pages, whose streams do not say how large the memory is.
  virtual void first_pass(std::uint64_t bytes_left) = 0;

  /// Another pass begins, over memory of so many bytes; 0 where the stream does not say.
  virtual void further_pass(std::uint64_t bytes) = 0;

  /// Whether QEMU measures rightly how fast its pages go: next to nothing of what is read now is
  /// known to the target, and the link is not what it waits for.
  virtual void speed_is_true(bool is_true) = 0;

  /// The target's QEMU has taken so many bytes more of the stream, and the link needs so many to be
  /// under way. From a thread of its own.
  virtual void delivered(std::uint64_t bytes, std::uint64_t link_bytes) = 0;

  /// The rest of the stream is not followed: the memory is across, or QEMU speaks in a way that is
  /// not understood.
  virtual void out_of_sight() = 0;
};

/// The two connections of a relay, borrowed; they must outlive it. A relay shuts both down at its
/// end.
struct RelayEnds {
  ByteStream& qemu;
  ByteStream& peer;
  PassWatch* passes = nullptr;  ///< Of the source; may be null.
};

/// What passed so far. `stream_bytes` are QEMU's, `wire_bytes` the relays' own in both directions,
/// without TLS.
struct RelayCounters {
  std::uint64_t stream_bytes = 0;
  std::uint64_t wire_bytes = 0;
  std::uint64_t page_refs = 0;      ///< Pages that the target had, the resent ones included.
  std::uint64_t page_deltas = 0;    ///< Pages sent as the difference to an older version.
  std::uint64_t page_literals = 0;  ///< Pages sent with their content.
  std::uint64_t zero_pages = 0;
  std::uint64_t pages_resent = 0;    ///< References that the target could not resolve.
  std::uint64_t template_pages = 0;  ///< That the guest goes on sharing with its template.
};

}  // namespace samepage::migrator
