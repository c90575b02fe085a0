#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "core/fd.h"
#include "core/result.h"
#include "imagestore/pack_file.h"
#include "imagestore/shared_file.h"

namespace samepage::imagestore {

/// A folder of packs, written by any number of processes.
///
/// One record is appended at a time, under the folder's lock, to the newest pack with room. From
/// its first record in a pack until release() or discard() a writer holds the pack shared: who gets
/// a pack exclusively knows that every record in it that the index does not name is nobody's.
///
/// Threads: one at a time; a folder object per thread. Lifetime: appended records that were not
/// released are discarded by whoever destroys it.
/// Errors: kIo: the disk refused or is full. kUnavailable: a stopped process holds the folder's
/// lock.
class PackFolder final {
 public:
  struct Options {
    std::filesystem::path folder;
    bool writable = false;
    std::uint64_t pack_bytes_max = 256U << 20U;
    std::chrono::milliseconds lock_time_max{30'000};
  };

  /// kIo: the folder is not there or not accessible.
  static Result<PackFolder> open(const Options& options);

  /// The numbers of all packs, ascending.
  Result<std::vector<std::uint32_t>> numbers() const;

  /// Says where the next record may go; without a word, into a new pack.
  void append_to(std::uint32_t number) { append_to_ = number; }

  Result<ObjectPlace> append(const ObjectName& name, std::span<const std::byte> bytes);

  /// Flushes every pack that was appended to since the last release() or discard(); returns their
  /// numbers, and where what this writer appended ends.
  Result<std::vector<std::pair<std::uint32_t, std::uint64_t>>> flush();

  /// Lets go of the packs: what was appended has been named.
  void release();

  /// Cuts off what was appended, where nobody appended behind it.
  Result<void> discard();

  /// kCorrupt: the record there is damaged, or is not `name`'s, or its pack is.
  Result<std::vector<std::byte>> read(const ObjectPlace& place, const ObjectName& name);

  /// A pack that nobody appends to until it is destroyed; none when somebody is.
  /// Errors as PackFile::open().
  Result<std::optional<PackFile>> seize(std::uint32_t number);

  /// Removes a seized pack.
  Result<void> remove(const PackFile& seized);

  /// Removes a pack in which not even a header is: its maker was killed. Does nothing to others.
  Result<void> remove_stillborn(std::uint32_t number);

 private:
  /// What this writer appended to a pack: ranges, ascending.
  struct Appended {
    PackFile pack;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  };

  PackFolder(Options options, Fd lock)
      : options_(std::move(options)),
        shared_(SharedFile::of(options_.folder / "lock")),
        lock_(std::move(lock)) {}

  std::filesystem::path path_of(std::uint32_t number) const;
  Result<Appended*> pack_for(std::uint64_t record_bytes);
  Result<Appended*> usable(std::uint32_t number, std::uint64_t record_bytes);
  Result<const PackFile*> pack_to_read(std::uint32_t number);

  Options options_;
  std::shared_ptr<SharedFile> shared_;
  Fd lock_;
  std::optional<std::uint32_t> append_to_;
  std::map<std::uint32_t, Appended> appended_;
  std::map<std::uint32_t, PackFile> readable_;
};

}  // namespace samepage::imagestore
