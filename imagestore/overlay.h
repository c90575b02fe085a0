#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <vector>

#include "core/fd.h"
#include "core/page.h"
#include "core/result.h"
#include "imagestore/overlay_log.h"
#include "imagestore/page_map.h"

namespace samepage::imagestore {

/// What one VM has written to its disk, in a folder of its own: `data`, a sparse file with each
/// written page at the disk's own offset, `map`, the state of every page (PageMap), and `log`, the
/// same in a form that survives a power cut (docs/formats/overlay.md).
///
/// Invariant: a write that returned survives the end of this process at any moment; one that was
/// followed by a flush() that returned also survives a power cut. After a power cut every page is
/// as of the last flush or as written since. The order that gives this: data before the map in
/// write(); data before the log, and both on the disk, in flush(). What a crash tore off the log's
/// end is cut off at the next open().
///
/// Threads: any. Writers to neighbouring pages wait for each other; freeze() waits for the writes
/// under way. One process has an overlay open at a time, which a lock on the folder sees to.
/// Errors: kIo: the disk refused or is full; full() tells which.
class Overlay final {
 public:
  /// Fills a page with what it is in the base.
  using ReadBase = std::function<Result<void>(std::uint64_t page, PageBuffer bytes)>;

  /// Makes the folder and an overlay in it, durable. kInvalid: one is there already.
  static Result<void> create(const std::filesystem::path& folder, const OverlayRoot& root);

  /// kNotFound: no overlay is there. kUnavailable: another process has it open. kCorrupt: its
  /// header is damaged.
  /// The log is written anew, without what later records replaced, when it is larger than
  /// `log_bytes_small` and twice what it was then.
  static Result<std::unique_ptr<Overlay>> open(const std::filesystem::path& folder,
                                               std::uint64_t log_bytes_small = 1U << 20U);

  ~Overlay();
  Overlay(const Overlay&) = delete;
  Overlay& operator=(const Overlay&) = delete;

  const OverlayRoot& root() const { return root_; }

  /// What the next commit is made on: the version of the last finish_commit(), the base before.
  VersionId committed() const;

  /// The longest run of pages from `first` on in one state, below `end`.
  StateRun run_at(std::uint64_t first, std::uint64_t end) const;

  /// Reads bytes of pages that are kWritten.
  Result<void> read(std::uint64_t offset, std::span<std::byte> bytes) const;

  /// `offset` and length as they come; a page that is written in part is completed from the base.
  Result<void> write(std::uint64_t offset, std::span<const std::byte> bytes,
                     const ReadBase& read_base);

  /// Makes a range zero; gives the room of whole pages back to the file system.
  Result<void> zero(std::uint64_t offset, std::uint64_t bytes, const ReadBase& read_base);

  Result<void> flush();

  /// The last write was refused because the file system is full.
  bool full() const { return full_; }

  struct Usage {
    std::uint64_t written_pages = 0;  ///< With data, committed or not.
    std::uint64_t zero_pages = 0;
    std::uint64_t dirty_pages = 0;  ///< Of both: that committed() may not have.
  };
  Usage usage() const;

  /// Begins a commit: the dirty pages of this very moment, which frozen() then hands out, however
  /// the guest goes on writing. A page that is written before it was handed out is copied to memory
  /// first, up to kSavedPagesMax; beyond that writers to such pages wait. kInvalid: another commit
  /// is under way.
  Result<void> freeze();

  /// One run of frozen pages: their bytes, or none when they are zeros.
  using VisitFrozen =
      std::function<Result<void>(const StateRun& run, std::span<const std::byte> bytes)>;

  /// Hands out the frozen pages, ascending, until `visit` fails.
  Result<void> visit_frozen(const VisitFrozen& visit);

  /// Ends the commit: `version` has the pages that were handed out. Durable. After a power cut
  /// they count as dirty all the same: what was written behind the last flush is not told apart.
  Result<void> finish_commit(const VersionId& version);

  /// Learns of a commit that was cut off before finish_commit(). Durable. What is dirty stays so.
  Result<void> adopt_commit(const VersionId& version);

  /// Ends the commit without a version: what was dirty stays dirty.
  void abandon_commit();

  static constexpr std::size_t kSavedPagesMax = 16'384;

  /// Begins to hand out all that a copy of this disk elsewhere needs, while the guest goes on: what
  /// take_unsent() has not handed out since it was written last. Without `committed`, pages that
  /// committed() has are left out. kInvalid: a commit or another move is under way.
  Result<void> begin_move(bool committed);

  /// Pages that are to be sent: runs, and the bytes of those that are kWritten, one after the
  /// other.
  struct Unsent {
    std::vector<StateRun> runs;
    std::vector<std::byte> bytes;
    bool is_last = false;  ///< Of a round: the next ones come from the disk's beginning again.
  };

  /// The next pages to send, at most `pages_max` with data, ascending within a round. What is
  /// written to them afterwards makes them unsent again. One thread at a time.
  Result<Unsent> take_unsent(std::size_t pages_max);

  /// Forgets what was handed out; a commit may begin again.
  void end_move();

  /// Takes pages as another overlay handed them out; `bytes` as in Unsent.
  Result<void> put(std::span<const StateRun> runs, std::span<const std::byte> bytes);

 private:
  static constexpr std::size_t kStripes = 1024;
  static constexpr std::uint64_t kStripePages = 64;
  static constexpr std::uint64_t kGroupPages = 4096;

  Overlay(std::filesystem::path folder, const OverlayRoot& root, Fd lock, Fd data, Fd log,
          PageMap map);

  Result<void> replay_log();
  void forget_freeze();
  std::unique_lock<std::shared_mutex> stop_writes();
  std::mutex& stripe(std::uint64_t page) { return stripes_[page / kStripePages % kStripes]; }
  Result<void> write_in_stripe(std::uint64_t offset, std::span<const std::byte> bytes,
                               const ReadBase& read_base);
  Result<void> write_part(std::uint64_t page, std::size_t from, std::span<const std::byte> bytes,
                          const ReadBase& read_base);
  Result<void> zero_pages(std::uint64_t first, std::uint64_t count);
  Result<void> write_data(std::uint64_t offset, std::span<const std::byte> bytes);
  void mark(std::uint64_t page, PageState state);
  Result<void> take_in_stripe(std::size_t pages_max, Unsent& unsent);
  Result<void> save_frozen(std::uint64_t first, std::uint64_t count);
  Result<std::vector<StateRun>> take_frozen(std::uint64_t first, std::uint64_t count,
                                            std::vector<std::byte>& bytes);

  std::vector<StateRun> unlogged_runs(std::vector<std::size_t>& groups);
  void settle_logged(const std::vector<StateRun>& runs);
  Result<void> append_log(std::span<const StateRun> runs);
  Result<std::vector<std::uint8_t>> read_log();
  Result<void> compact_log();

  const std::filesystem::path folder_;
  const OverlayRoot root_;
  Fd lock_;
  Fd data_;
  PageMap map_;
  std::atomic<bool> full_{false};

  std::shared_mutex gate_;  ///< Shared by writes, exclusive for freeze().
  std::mutex turnstile_;    ///< Held by who waits for the gate, so that new writes do not pass.
  std::atomic<int> stopping_{0};
  std::array<std::mutex, kStripes> stripes_;
  std::vector<std::atomic<bool>> groups_unlogged_;
  std::vector<std::atomic<bool>> groups_unsent_;

  mutable std::mutex log_mutex_;  ///< Of what follows.
  Fd log_;
  std::uint64_t log_bytes_ = 0;
  std::uint64_t log_bytes_small_ = 0;
  std::uint64_t log_bytes_compact_ = 0;  ///< After the last compaction.
  VersionId committed_;

  std::atomic<bool> is_committing_{false};
  std::mutex saved_mutex_;
  std::condition_variable saved_changed_;
  std::map<std::uint64_t, std::vector<std::byte>> saved_;  ///< Frozen pages; empty: zeros.

  std::atomic<bool> is_moving_{false};
  bool moves_committed_ = false;
  std::uint64_t next_unsent_ = 0;  ///< Where take_unsent() goes on.
};

}  // namespace samepage::imagestore
