#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "core/result.h"

namespace samepage::agent {

/// How fast KSM scans: its files pages_to_scan and sleep_millisecs.
struct KsmPace {
  std::uint64_t pages_to_scan = 100;
  std::uint64_t sleep_ms = 20;

  friend bool operator==(const KsmPace&, const KsmPace&) = default;
};

/// What fingerprints and the count of frames say of one host. Pages of 4 KiB.
struct KsmNews {
  std::uint64_t mergeable_pages = 0;  ///< Populated, of the guests that KSM looks at.
  std::uint64_t expected_pages = 0;   ///< What merging would save.
  std::uint64_t achieved_pages = 0;   ///< What it saves.
};

/// The pace that the news call for: a pass over all guests in seconds while there is something to
/// merge that is not merged, one in ten minutes while there is not, and never more CPU time than
/// `cpu_share` of a core at `seconds_per_page`.
KsmPace ksm_pace(const KsmNews& news, double cpu_share, double seconds_per_page);

/// Drives the kernel's KSM: on, at the pace that the news call for, and as it was before at the
/// end. What it was is kept in a file, so that an agent that was killed does not change it for
/// good: the next one puts it back.
///
/// Threads: one at a time.
class KsmDriver {
 public:
  struct Options {
    double cpu_share = 0.2;  ///< Of a core, for the kernel's thread.
    std::string folder = "/sys/kernel/mm/ksm";
    std::string saved_file = "/run/samepage/ksm.saved";
  };

  /// kNotFound: this kernel has no KSM. kIo: it cannot be driven, or `saved_file` not written.
  static Result<std::unique_ptr<KsmDriver>> create(Options options);

  /// Puts KSM back as it was.
  ~KsmDriver();
  KsmDriver(const KsmDriver&) = delete;
  KsmDriver& operator=(const KsmDriver&) = delete;

  /// kIo: the kernel refused; KSM goes on as it did.
  Result<void> follow(const KsmNews& news);

 private:
  explicit KsmDriver(Options options) : options_(std::move(options)) {}

  Result<void> save();
  void restore();
  Result<std::uint64_t> get(const std::string& name) const;
  Result<void> put(const std::string& name, std::uint64_t value) const;

  const Options options_;
  std::map<std::string, std::uint64_t> former_;
  std::optional<KsmPace> pace_;
};

}  // namespace samepage::agent
