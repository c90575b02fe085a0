#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "imagestore/base_reader.h"
#include "imagestore/boot_trace.h"
#include "imagestore/version_source.h"

namespace samepage::imagestore {

/// The exchange of one boot with others through the catalog: publishes what this guest reads, as it
/// grows, and prefetches what others' traces say, as they grow. So the slow boots of a storm follow
/// the fastest, and the first boot of a version follows the boots of the versions before it.
///
/// Threads: one at a time. Lifetime: borrows recorder and reader.
class TraceKeeper final {
 public:
  struct Options {
    VersionSource::Options source;
    VersionId version;
    std::string image;
    std::chrono::seconds boot_max{600};
    std::chrono::seconds quiet_max{60};
    std::chrono::milliseconds interval{500};
  };

  TraceKeeper(Options options, TraceRecorder& recorder, BaseReader& reader);
  ~TraceKeeper();
  TraceKeeper(const TraceKeeper&) = delete;
  TraceKeeper& operator=(const TraceKeeper&) = delete;

  /// One exchange, then a pause. False: the boot is over, or `stop` was requested.
  bool tend(const std::stop_token& stop);

  std::uint64_t traced_pages() const { return trace_.pages.size(); }
  std::uint64_t followed_pages() const { return followed_; }

 private:
  Result<void> exchange();
  Result<void> follow();
  Result<void> follow_other_versions(ImageStore& store);
  Result<void> record();
  Result<void> publish();
  void prefetch(const BootTrace& trace);

  const Options options_;
  TraceRecorder& recorder_;
  BaseReader& reader_;
  std::unique_ptr<VersionSource> source_;
  BootTrace trace_;
  std::size_t taken_ = 0;      ///< Of the recorder's pages.
  std::size_t published_ = 0;  ///< Of trace_.
  std::uint64_t followed_ = 0;
  bool asked_others_ = false;
  std::chrono::steady_clock::time_point began_;
  std::chrono::steady_clock::time_point grew_;
};

}  // namespace samepage::imagestore
