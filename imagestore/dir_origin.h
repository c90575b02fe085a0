#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>

#include "imagestore/origin.h"

namespace samepage::imagestore {

/// An Origin in a folder: append-only pack files, found through an SQLite index.
///
/// Invariant: the index points only at records that are whole on the disk. Packs are flushed before
/// the index that names their records, so a crash at any moment leaves at most unnamed records
/// behind the last named one; the next writer adopts the whole ones and cuts off the torn rest.
/// An index that was lost is rebuilt from the packs in the same way.
///
/// Sweeping deletes from the index first and then gives the records' room back to the file system,
/// with that of every record that the index does not name.
///
/// Any number of writers and readers, in any process. Lifetime: unsynced objects are discarded by
/// the destructor.
class DirOrigin final : public Origin {
 public:
  enum class Access : std::uint8_t { kRead, kWrite };

  struct Options {
    std::filesystem::path folder;
    Access access = Access::kRead;
    std::uint64_t pack_bytes_max = 256U << 20U;       ///< A pack takes no further record beyond it.
    std::chrono::milliseconds lock_time_max{30'000};  ///< To wait for one append of another writer.
  };

  /// What opening for writing had to mend after a crash.
  struct Repairs {
    std::uint64_t objects_adopted = 0;  ///< Whole extents that the index had not named.
    std::uint64_t bytes_cut = 0;        ///< Of torn or foreign bytes behind the last whole record.
  };

  /// Creates the folder when opened for writing. kUnavailable: a stopped process holds a lock.
  /// kNotFound: opened for reading and there is no origin. kInvalid: a pack or index of an unknown
  /// format version.
  static Result<std::unique_ptr<DirOrigin>> open(const Options& options);

  ~DirOrigin() override;
  DirOrigin(const DirOrigin&) = delete;
  DirOrigin& operator=(const DirOrigin&) = delete;

  Result<void> put(const ObjectName& name, std::span<const std::byte> bytes) override;
  Result<void> keep(const ObjectName& name) override;
  Result<void> sync() override;
  Result<void> discard() override;
  Result<std::vector<std::byte>> get(const ObjectName& name) override;
  Result<bool> contains(const ObjectName& name) override;
  Result<void> list(const Visit& visit) override;
  Result<void> bury(std::span<const ObjectName> names, std::chrono::sys_seconds at) override;
  Result<SweepReport> sweep(std::span<const ObjectName> names,
                            std::chrono::sys_seconds until) override;
  std::string place(const ObjectName& name) override;

  const Repairs& repairs() const;

 private:
  class Impl;
  explicit DirOrigin(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace samepage::imagestore
