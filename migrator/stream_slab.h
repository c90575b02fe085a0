#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <stop_token>
#include <vector>

#include "core/mutex.h"

namespace samepage::migrator {

/// A piece of memory for guests' pages: kept out of swap where the kernel allows it and out of core
/// dumps, and wiped when it is given back.
class Slab {
 public:
  explicit Slab(std::size_t bytes);
  ~Slab();
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;

  std::span<std::byte> bytes() const { return bytes_; }

  /// Wipes it and leaves its memory to the kernel until it is used again.
  void rest();
  void wake();

 private:
  void* mapped_ = nullptr;
  std::size_t mapped_bytes_ = 0;
  std::span<std::byte> bytes_;
};

/// A piece of a slab, which it keeps alive: a stretch of QEMU's stream, or what stands for one.
/// Whoever filled it shares it as const.
struct StreamBytes {
  std::shared_ptr<Slab> slab;
  std::span<std::byte> bytes;
};

/// Hands out slabs. Up to kFreeMax slabs that nobody holds any more are kept for the process's next
/// relays, wiped, and the kernel may take their memory whenever it needs some: a machine's own
/// fresh memory costs a virtual machine more than all else that a relay does with it. Threads: any.
/// Slabs may outlive the pool.
class SlabPool {
 public:
  static constexpr std::size_t kSlabBytes = 4U << 20U;
  static constexpr std::size_t kFreeMax = 160;

  /// Its content is of no meaning.
  static std::shared_ptr<Slab> take();

  /// Touches so many slabs, of kSlabBytes each, and lets them lie idle, so that the process's first
  /// relays find them as later ones do; at most kFreeMax stay. Ends early when it is stopped.
  /// 256 MiB take some tenths of a second of a processor.
  static void warm_up(std::size_t slabs, const std::stop_token& stop);

  /// `size` bytes, of no meaning; consecutive ones share slabs, more than kSlabBytes have their
  /// own.
  StreamBytes take_bytes(std::size_t size);

  /// Takes back what `last`, the bytes that were taken last, has behind its first `size`.
  void trim(StreamBytes& last, std::size_t size);

 private:
  Mutex mutex_;
  std::shared_ptr<Slab> current_ GUARDED_BY(mutex_);
  std::size_t used_ GUARDED_BY(mutex_) = 0;
};

/// A slab to work in, which grows. Threads: one at a time.
class SlabScratch {
 public:
  /// `size` bytes, of no meaning, until the next call.
  std::span<std::byte> bytes(std::size_t size);

 private:
  std::shared_ptr<Slab> slab_;
};

}  // namespace samepage::migrator
