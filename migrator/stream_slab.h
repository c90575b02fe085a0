#pragma once

#include <cstddef>
#include <memory>
#include <span>
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

 private:
  void* mapped_ = nullptr;
  std::size_t mapped_bytes_ = 0;
  std::span<std::byte> bytes_;
};

/// A stretch of QEMU's stream in a slab, which it keeps alive. Whoever filled it shares it as
/// const.
struct StreamBytes {
  std::shared_ptr<Slab> slab;
  std::span<std::byte> bytes;
};

/// Hands out slabs, those again that nobody holds any more. Threads: any. Lifetime: the pool's
/// memory lives as long as the pool or a slab of it.
class SlabPool {
 public:
  static constexpr std::size_t kSlabBytes = 4U << 20U;

  SlabPool();

  std::shared_ptr<Slab> take();

  /// A stretch of `size` bytes, at most kSlabBytes; consecutive ones share slabs.
  StreamBytes take_bytes(std::size_t size);

 private:
  struct Free;

  const std::shared_ptr<Free> free_;
  Mutex mutex_;
  std::shared_ptr<Slab> current_ GUARDED_BY(mutex_);
  std::size_t used_ GUARDED_BY(mutex_) = 0;
};

}  // namespace samepage::migrator
