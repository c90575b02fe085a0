#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "core/mutex.h"
#include "migrator/byte_stream.h"

namespace samepage::fakes {

/// What happens to the bytes of one direction, counted from its first byte.
struct WireFault {
  std::optional<std::uint64_t> flip_bit;   ///< This bit arrives inverted.
  std::optional<std::uint64_t> cut_after;  ///< The connection breaks after so many bytes.
};

/// One end of a connection in memory. Writing blocks when the peer leaves `capacity` bytes unread.
class FakeByteStream final : public migrator::ByteStream {
 public:
  /// Two connected ends.
  static std::pair<std::unique_ptr<FakeByteStream>, std::unique_ptr<FakeByteStream>> connect(
      std::size_t capacity = 256U << 10U) {
    auto there = std::make_shared<Pipe>(capacity);
    auto back = std::make_shared<Pipe>(capacity);
    return {std::unique_ptr<FakeByteStream>(new FakeByteStream(back, there)),
            std::unique_ptr<FakeByteStream>(new FakeByteStream(there, back))};
  }

  Result<std::size_t> read_some(std::span<std::byte> buffer, Deadline deadline) override {
    return in_->read(buffer, deadline);
  }
  Result<void> write_all(std::span<const std::byte> bytes, Deadline deadline) override {
    return out_->write(bytes, deadline);
  }
  Result<void> finish_writing() override { return out_->finish(); }
  void shut_down() override {
    in_->close();
    out_->close();
  }

  /// For what this end writes. Set it before the first byte.
  void set_fault(const WireFault& fault) { out_->set_fault(fault); }

  /// Everything that this end has written, without faults.
  std::vector<std::byte> written() const { return out_->written(); }

 private:
  class Pipe {
   public:
    explicit Pipe(std::size_t capacity) : capacity_(capacity) {}

    Result<std::size_t> read(std::span<std::byte> buffer, Deadline deadline) {
      const MutexLock lock(mutex_);
      while (unread() == 0 && !finished_ && !closed_) {
        if (std::chrono::steady_clock::now() >= deadline) {
          return fail(Errc::kTimedOut, "nothing to read");
        }
        changed_.wait_until(mutex_, deadline);
      }
      if (unread() == 0 && !finished_) return fail(Errc::kUnavailable, "connection closed");
      const std::size_t size = std::min(buffer.size(), unread());
      std::copy_n(arrived_.begin() + static_cast<std::ptrdiff_t>(read_), size, buffer.begin());
      read_ += size;
      changed_.notify_all();
      return size;
    }

    Result<void> write(std::span<const std::byte> bytes, Deadline deadline) {
      const MutexLock lock(mutex_);
      while (!bytes.empty()) {
        while (unread() >= capacity_ && !closed_) {
          if (std::chrono::steady_clock::now() >= deadline) {
            return fail(Errc::kTimedOut, "the peer does not read");
          }
          changed_.wait_until(mutex_, deadline);
        }
        if (closed_ || finished_) return fail(Errc::kUnavailable, "connection closed");
        const std::size_t size = std::min(bytes.size(), capacity_ - unread());
        append(bytes.first(size));
        bytes = bytes.subspan(size);
        changed_.notify_all();
        if (closed_) return fail(Errc::kUnavailable, "connection closed");
      }
      return {};
    }

    Result<void> finish() {
      const MutexLock lock(mutex_);
      if (closed_) return fail(Errc::kUnavailable, "connection closed");
      finished_ = true;
      changed_.notify_all();
      return {};
    }

    void close() {
      const MutexLock lock(mutex_);
      closed_ = true;
      changed_.notify_all();
    }

    void set_fault(const WireFault& fault) {
      const MutexLock lock(mutex_);
      fault_ = fault;
    }

    std::vector<std::byte> written() {
      const MutexLock lock(mutex_);
      return written_;
    }

   private:
    std::size_t unread() REQUIRES(mutex_) { return arrived_.size() - read_; }

    void append(std::span<const std::byte> bytes) REQUIRES(mutex_) {
      const std::uint64_t from = written_.size();
      written_.insert(written_.end(), bytes.begin(), bytes.end());
      if (fault_.cut_after && written_.size() > *fault_.cut_after) {
        closed_ = true;
        bytes = bytes.first(*fault_.cut_after - std::min(*fault_.cut_after, from));
      }
      arrived_.insert(arrived_.end(), bytes.begin(), bytes.end());
      const std::uint64_t flipped = fault_.flip_bit.value_or(UINT64_MAX) / 8;
      if (flipped >= from && flipped < arrived_.size()) {
        arrived_[flipped] ^= std::byte(1U << (*fault_.flip_bit % 8));
      }
    }

    const std::size_t capacity_;
    Mutex mutex_;
    std::condition_variable_any changed_;
    std::vector<std::byte> written_ GUARDED_BY(mutex_);
    std::vector<std::byte> arrived_ GUARDED_BY(mutex_);
    std::size_t read_ GUARDED_BY(mutex_) = 0;
    bool finished_ GUARDED_BY(mutex_) = false;
    bool closed_ GUARDED_BY(mutex_) = false;
    WireFault fault_ GUARDED_BY(mutex_);
  };

  FakeByteStream(std::shared_ptr<Pipe> in, std::shared_ptr<Pipe> out)
      : in_(std::move(in)), out_(std::move(out)) {}

  std::shared_ptr<Pipe> in_;
  std::shared_ptr<Pipe> out_;
};

}  // namespace samepage::fakes
