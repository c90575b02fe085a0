#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "core/clock.h"
#include "core/database.h"
#include "core/result.h"
#include "core/sharing_domain.h"

namespace samepage::placer {

struct EnrolledHost {
  std::string name;
  std::string public_key;  ///< CURVE, 64 hexadecimal digits.
  std::chrono::system_clock::time_point enrolled_at;
};

/// Who may speak on the bus, and the secrets of the sharing domains, in the placer's SQLite file.
/// Threads and lifetime: as Journal. Errors of every method: kUnavailable, kCorrupt, kIo: as
/// Statement's; nothing was changed.
class Registry {
 public:
  struct Options {
    std::size_t domains_max = 64;
  };

  Registry(const Options& options, Database& database, const Clock& clock)
      : options_(options), database_(database), clock_(clock) {}

  /// kInvalid: the name (1 to 63 letters, digits, `-`, `.`, `_`) or the key cannot be one, or
  /// either belongs to another host. Enrolling the same pair again changes nothing.
  Result<EnrolledHost> enroll(const std::string& name, const std::string& public_key);

  /// kNotFound: no such host.
  Result<void> forget(std::string_view name);

  /// Sorted by name.
  Result<std::vector<EnrolledHost>> hosts();

  /// The secrets of a domain, made at its first use and the same ever after. kInvalid: the name is
  /// unusable (as a host's), or there are domains_max domains. kIo: no randomness.
  Result<SharingDomain> domain(const std::string& name);

  /// Every domain that has been used, sorted by name.
  Result<std::vector<SharingDomain>> domains();

 private:
  Options options_;
  Database& database_;
  const Clock& clock_;
};

}  // namespace samepage::placer
