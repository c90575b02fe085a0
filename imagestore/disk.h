#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "core/result.h"
#include "imagestore/base_reader.h"
#include "imagestore/boot_trace.h"
#include "imagestore/commit.h"
#include "imagestore/mirror.h"
#include "imagestore/overlay.h"
#include "imagestore/write_throttle.h"

namespace samepage::imagestore {

/// The disk of one VM: an overlay of what it has written, on top of a version of an image that is
/// read as it is needed. What the nbdkit plugin serves.
///
/// Reading: written pages from the overlay, others from the host's mirror of the version, and what
/// that does not have is fetched. Writing is local, and never reads more than the page that it
/// writes in part. While the guest boots, the disk takes down which pages it reads (the boot
/// trace), shares that through the catalog as it grows, and fetches ahead what traces of other
/// boots say.
///
/// Invariant: Overlay's and BaseReader's. A version that was committed is the disk as it was when
/// begin_commit() returned.
/// Threads: any; one commit at a time. Errors: kIo: the local disk refused or is full (is_full()).
/// Others as BaseReader's, for reads and for writes of less than a page.
class Disk final {
 public:
  struct Options {
    std::filesystem::path folder;   ///< The overlay's.
    std::filesystem::path mirrors;  ///< Of this host's versions.
    VersionSource::Options source;
    std::string image = {};  ///< Whose traces serve when the version has none of its own.
    unsigned threads = 2;    ///< That fetch.
    bool traces = true;      ///< Record and follow boot traces.
    std::chrono::seconds boot_max{600};  ///< A trace ends then at the latest, or
    std::chrono::seconds quiet_max{60};  ///< when nothing new was read for so long.
  };

  /// Errors: Overlay::open()'s and Mirror::open()'s. The base is opened in the background: a store
  /// that is away delays reads, not this.
  static Result<std::unique_ptr<Disk>> open(const Options& options);

  ~Disk();
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

  std::uint64_t size_bytes() const { return overlay_->root().size_bytes; }

  // Ranges lie within size_bytes().
  Result<void> read(std::uint64_t offset, std::span<std::byte> bytes);
  Result<void> write(std::uint64_t offset, std::span<const std::byte> bytes);
  Result<void> zero(std::uint64_t offset, std::uint64_t bytes);
  Result<void> flush() { return overlay_->flush(); }
  bool is_full() const { return overlay_->full(); }

  /// A run of bytes from `offset` on, below `end`, that are all zeros, or may have data.
  struct Stretch {
    std::uint64_t bytes = 0;
    bool is_zero = false;
    bool is_local = false;  ///< In the overlay.
  };
  Stretch stretch_at(std::uint64_t offset, std::uint64_t end);

  /// Fetches what a range needs, in the background.
  void prefetch(std::uint64_t offset, std::uint64_t bytes);

  /// Waits for prefetches. False: not all were done by the deadline.
  bool drain(Deadline deadline) { return reader_->drain(deadline); }

  /// Freezes what the disk is now for finish_commit(); the guest goes on. kInvalid: one is frozen.
  Result<void> begin_commit() { return overlay_->freeze(); }

  /// Makes what was frozen a version of `image`, which is made when there is none, as a clone of
  /// what the last commit made, or of the disk's base. An error leaves the disk as it was, nothing
  /// frozen. Errors: Commit's; kInvalid also: the image does not have the version that this disk
  /// stands on.
  Result<CommitReport> finish_commit(const std::string& image);
  void abandon_commit() { overlay_->abandon_commit(); }

  /// For who moves what was written to the disk to another host, or from there.
  Overlay& overlay() { return *overlay_; }

  /// Guests write no faster from now on; 0: as fast as they like.
  void limit_writes(std::uint64_t bytes_per_s) { throttle_.limit(bytes_per_s); }

  struct Status {
    OverlayRoot root;
    VersionId committed;
    Overlay::Usage usage;
    BaseReader::Counts fetched;
    std::uint64_t traced_pages = 0;
    std::uint64_t followed_pages = 0;  ///< Of traces of other boots.
  };
  Status status() const;

 private:
  Disk(Options options, std::unique_ptr<Overlay> overlay, std::unique_ptr<Mirror> mirror);

  void tend_trace(const std::stop_token& stop);

  const Options options_;
  std::unique_ptr<Overlay> overlay_;
  WriteThrottle throttle_;
  std::unique_ptr<Mirror> mirror_;
  TraceRecorder recorder_;
  std::unique_ptr<BaseReader> reader_;
  Overlay::ReadBase read_base_;
  std::atomic<std::uint64_t> traced_pages_{0};
  std::atomic<std::uint64_t> followed_pages_{0};
  std::jthread trace_thread_;
};

}  // namespace samepage::imagestore
