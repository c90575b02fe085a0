#include "migrator/relay.h"

#include <algorithm>
#include <thread>

namespace samepage::migrator {
namespace {

constexpr std::size_t kWorkersMax = 64;

}  // namespace

Result<void> check(const RelayOptions& options) {
  const bool bounded = options.batches_in_flight_max >= 1 &&
                       options.batches_in_flight_max <= kBatchesInFlightMax &&
                       options.wire_bytes_in_flight_max >= 1;
  if (!bounded) return fail(Errc::kInvalid, "the relay's batches in flight are out of range");
  const bool timed = options.flush_after.count() > 0 && options.batch_age_max.count() > 0 &&
                     options.stall_max.count() > 0 && options.quiet_max.count() > 0;
  if (!timed) return fail(Errc::kInvalid, "a time limit of the relay is not positive");
  if (options.zstd_level_max < 1 || options.zstd_level_max > 19) {
    return fail(Errc::kInvalid, "the relay's zstd level is out of range");
  }
  if (options.workers > kWorkersMax) return fail(Errc::kInvalid, "too many workers");
  return {};
}

std::size_t worker_count(const RelayOptions& options) {
  if (options.workers > 0) return options.workers;
  return std::clamp<std::size_t>(std::thread::hardware_concurrency(), 1, 4);
}

}  // namespace samepage::migrator
