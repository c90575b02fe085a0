#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "core/mutex.h"
#include "migrator/moving_disk.h"

namespace samepage::migrator {

/// A disk on two hosts, in memory: numbers for pages.
/// Threads: every method may be called from any thread.
class PlayedDisk final {
 public:
  using Pages = std::map<std::uint64_t, std::uint64_t>;

  /// Of the guest, on the source.
  void write(std::uint64_t page, std::uint64_t value) {
    const MutexLock lock(mutex_);
    source_[page] = value;
    unsent_.insert(page);
  }

  Pages on_source() const {
    const MutexLock lock(mutex_);
    return source_;
  }
  Pages on_target() const {
    const MutexLock lock(mutex_);
    return target_;
  }
  bool is_offered() const {
    const MutexLock lock(mutex_);
    return is_offered_;
  }
  /// The target has said that all is there to stay.
  bool is_complete() const {
    const MutexLock lock(mutex_);
    return is_complete_;
  }
  /// The limits that the guest was told, in their order; 0: none.
  std::vector<std::uint64_t> limits() const {
    const MutexLock lock(mutex_);
    return limits_;
  }
  unsigned flushes() const {
    const MutexLock lock(mutex_);
    return flushes_;
  }

  // Asked before each step; an error is the step's.
  std::function<Result<void>()> before_expect = [] { return Result<void>(); };
  std::function<Result<void>()> before_next = [] { return Result<void>(); };
  std::function<Result<void>()> before_put = [] { return Result<void>(); };
  std::function<Result<void>()> before_complete = [] { return Result<void>(); };

  LeavingDiskList leaving() {
    LeavingDiskList list;
    list.push_back(std::make_unique<Leaving>(*this));
    return list;
  }

  ExpectDisk expected() {
    return [this](std::span<const std::byte> offer) -> Result<std::unique_ptr<ArrivingDisk>> {
      TRY(before_expect());
      if (TRY(ByteReader(offer).u32()) != kOffer) return fail(Errc::kCorrupt, "no offer");
      const MutexLock lock(mutex_);
      is_offered_ = true;
      return std::make_unique<Arriving>(*this);
    };
  }

 private:
  static constexpr std::uint32_t kOffer = 77;
  static constexpr std::uint64_t kPageBytes = 4096;

  static std::vector<std::byte> number(std::uint32_t value) {
    ByteWriter writer;
    writer.u32(value);
    return writer.take();
  }

  class Leaving final : public LeavingDisk {
   public:
    explicit Leaving(PlayedDisk& disk) : disk_(disk) {}
    std::string name() const override { return "played"; }
    Result<std::vector<std::byte>> offer() override { return number(kOffer); }
    Result<void> begin(std::span<const std::byte> answer) override {
      if (TRY(ByteReader(answer).u32()) != kOffer + 1) return fail(Errc::kCorrupt, "no answer");
      return {};
    }
    Result<Parcel> next() override {
      TRY(disk_.before_next());
      const MutexLock lock(disk_.mutex_);
      const auto unsent = disk_.unsent_.lower_bound(disk_.next_);
      if (unsent == disk_.unsent_.end()) {
        disk_.next_ = 0;
        return Parcel{.bytes = {}, .disk_bytes = 0, .is_last = true};
      }
      const std::uint64_t page = *unsent;
      disk_.next_ = page + 1;
      disk_.unsent_.erase(unsent);
      ByteWriter writer;
      writer.u64(page);
      writer.u64(disk_.source_[page]);
      return Parcel{.bytes = writer.take(), .disk_bytes = kPageBytes, .is_last = false};
    }
    Result<void> limit_writes(std::uint64_t bytes_per_s) override {
      const MutexLock lock(disk_.mutex_);
      disk_.limits_.push_back(bytes_per_s);
      return {};
    }

   private:
    PlayedDisk& disk_;
  };

  class Arriving final : public ArrivingDisk {
   public:
    explicit Arriving(PlayedDisk& disk) : disk_(disk) {}
    std::vector<std::byte> answer() override { return number(kOffer + 1); }
    Result<void> put(std::span<const std::byte> parcel) override {
      TRY(disk_.before_put());
      ByteReader reader(parcel);
      const std::uint64_t page = TRY(reader.u64());
      const std::uint64_t value = TRY(reader.u64());
      const MutexLock lock(disk_.mutex_);
      disk_.target_[page] = value;
      return {};
    }
    Result<void> flush() override {
      const MutexLock lock(disk_.mutex_);
      ++disk_.flushes_;
      return {};
    }
    Result<void> complete() override {
      TRY(disk_.before_complete());
      const MutexLock lock(disk_.mutex_);
      disk_.is_complete_ = true;
      return {};
    }

   private:
    PlayedDisk& disk_;
  };

  mutable Mutex mutex_;
  Pages source_ GUARDED_BY(mutex_);
  std::set<std::uint64_t> unsent_ GUARDED_BY(mutex_);
  std::uint64_t next_ GUARDED_BY(mutex_) = 0;  ///< Where the round goes on.
  Pages target_ GUARDED_BY(mutex_);
  bool is_offered_ GUARDED_BY(mutex_) = false;
  bool is_complete_ GUARDED_BY(mutex_) = false;
  unsigned flushes_ GUARDED_BY(mutex_) = 0;
  std::vector<std::uint64_t> limits_ GUARDED_BY(mutex_);
};

}  // namespace samepage::migrator
