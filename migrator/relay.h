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
  std::size_t batches_in_flight_max = 16;  ///< 1 to kBatchesInFlightMax; 1 MiB of memory each.

  /// Bytes under way between the relays, at least one batch. QEMU takes them for delivered when it
  /// estimates the downtime, so no more than the link needs.
  std::size_t wire_bytes_in_flight_max = 4U << 20U;

  /// A batch is sent as soon as QEMU has been silent for `flush_after`, or after `batch_age_max`;
  /// a record of which QEMU has written only a part, after `batch_age_max`.
  std::chrono::microseconds flush_after{1'000};
  std::chrono::microseconds batch_age_max{10'000};

  /// A peer that should answer or take bytes, and does not for so long, has failed.
  std::chrono::milliseconds stall_max{30'000};

  /// QEMU may say nothing for so long, for instance while it waits for its disks.
  std::chrono::milliseconds quiet_max{120'000};

  int zstd_level = 1;  ///< -7 (fastest) to 19.
};

/// kInvalid: a field is out of its range.
Result<void> check(const RelayOptions& options);

/// The two connections of a relay, borrowed; they must outlive it. A relay shuts both down at its
/// end.
struct RelayEnds {
  ByteStream& qemu;
  ByteStream& peer;
};

/// What passed so far. `stream_bytes` are QEMU's, `wire_bytes` the relays' own in both directions,
/// without TLS.
struct RelayCounters {
  std::uint64_t stream_bytes = 0;
  std::uint64_t wire_bytes = 0;
  std::uint64_t page_refs = 0;      ///< Pages named by their digest, the resent ones included.
  std::uint64_t page_literals = 0;  ///< Pages sent with their content.
  std::uint64_t zero_pages = 0;
  std::uint64_t pages_resent = 0;  ///< References that the target could not resolve.
};

}  // namespace samepage::migrator
