#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"

namespace samepage::migrator {

// A disk that a VM takes along, as a session sees it: it carries words and parcels of pages between
// the two, which mean something to the disks only, and sees to it that the target has all of them
// before it gets the guest. An agent's disks in programs, memory in tests.

/// Of one session.
inline constexpr std::size_t kMovingDisksMax = 16;

/// At the source. Threads: one at a time.
class LeavingDisk {
 public:
  virtual ~LeavingDisk() = default;

  virtual std::string name() const = 0;

  /// What the target must know to make the disk there. At most kDiskWordsMax bytes.
  virtual Result<std::vector<std::byte>> offer() = 0;

  /// The target has made it, and answered so. From now on next() may be called.
  virtual Result<void> begin(std::span<const std::byte> answer) = 0;

  /// Some of what the target does not have as it is now; empty when that is nothing. A round goes
  /// once through the disk; after one in which nothing was to be sent while nobody wrote, the
  /// target has the disk.
  struct Parcel {
    std::vector<std::byte> bytes;
    std::uint64_t disk_bytes = 0;  ///< That it stands for.
    bool is_last = false;          ///< Of its round.
  };
  virtual Result<Parcel> next() = 0;

  /// The guest writes no faster from now on, until this disk is let go of; 0: as fast as it likes.
  virtual Result<void> limit_writes(std::uint64_t bytes_per_s) = 0;
};

using LeavingDiskList = std::vector<std::unique_ptr<LeavingDisk>>;

/// At the target. Threads: one at a time.
class ArrivingDisk {
 public:
  virtual ~ArrivingDisk() = default;

  /// What begin() is told. At most kDiskWordsMax bytes.
  virtual std::vector<std::byte> answer() = 0;

  /// Takes a parcel, which may be anybody's bytes.
  virtual Result<void> put(std::span<const std::byte> parcel) = 0;

  /// Has what came survive a power cut.
  virtual Result<void> flush() = 0;

  /// All has come. When this returns, the disk survives everything here, and the guest may run on
  /// it.
  virtual Result<void> complete() = 0;
};

/// Makes a disk at the target by what the source said of it, which may be anybody's words. Any
/// error: this host cannot have it, for the reason that it says.
using ExpectDisk =
    std::function<Result<std::unique_ptr<ArrivingDisk>>(std::span<const std::byte> offer)>;

}  // namespace samepage::migrator
