#include "migrator/relay.h"

namespace samepage::migrator {

Result<void> check(const RelayOptions& options) {
  const bool bounded = options.batches_in_flight_max >= 1 &&
                       options.batches_in_flight_max <= kBatchesInFlightMax &&
                       options.wire_bytes_in_flight_max >= 1;
  if (!bounded) return fail(Errc::kInvalid, "the relay's batches in flight are out of range");
  const bool timed = options.flush_after.count() > 0 && options.batch_age_max.count() > 0 &&
                     options.stall_max.count() > 0 && options.quiet_max.count() > 0;
  if (!timed) return fail(Errc::kInvalid, "a time limit of the relay is not positive");
  if (options.zstd_level < -7 || options.zstd_level > 19) {
    return fail(Errc::kInvalid, "the relay's zstd level is out of range");
  }
  return {};
}

}  // namespace samepage::migrator
