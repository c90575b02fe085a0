#include "migrator/stream_slab.h"

#include <utility>

#include <string.h>
#include <sys/mman.h>

#include "core/check.h"

namespace samepage::migrator {
namespace {

constexpr std::size_t kHugePageBytes = 2U << 20U;

}  // namespace

Slab::Slab(std::size_t bytes) {
  mapped_bytes_ = bytes + kHugePageBytes;
  mapped_ =
      ::mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(mapped_ != MAP_FAILED);
  void* memory = mapped_;
  std::size_t space = mapped_bytes_;
  CHECK(std::align(kHugePageBytes, bytes, memory, space) != nullptr);
  bytes_ = {static_cast<std::byte*>(memory), bytes};
  // A fault for each 4 KiB would cost as much as all the rest that is done with them.
  static_cast<void>(::madvise(memory, bytes, MADV_HUGEPAGE));
  // Both are for secrecy only: an agent without the right to lock memory works all the same.
  static_cast<void>(::mlock2(memory, bytes, MLOCK_ONFAULT));
  static_cast<void>(::madvise(memory, bytes, MADV_DONTDUMP));
}

Slab::~Slab() {
  ::explicit_bzero(bytes_.data(), bytes_.size());
  static_cast<void>(::munmap(mapped_, mapped_bytes_));
}

/// Shared with the slabs under way, which come back here while the pool is there.
struct SlabPool::Free {
  Mutex mutex;
  std::vector<std::unique_ptr<Slab>> slabs GUARDED_BY(mutex);
};

SlabPool::SlabPool() : free_(std::make_shared<Free>()) {}

std::shared_ptr<Slab> SlabPool::take() {
  std::unique_ptr<Slab> slab;
  {
    const MutexLock lock(free_->mutex);
    if (!free_->slabs.empty()) {
      slab = std::move(free_->slabs.back());
      free_->slabs.pop_back();
    }
  }
  if (!slab) slab = std::make_unique<Slab>(kSlabBytes);
  return {slab.release(), [pool = std::weak_ptr(free_)](Slab* used) {
            std::unique_ptr<Slab> back(used);
            if (const auto free = pool.lock()) {
              const MutexLock lock(free->mutex);
              free->slabs.push_back(std::move(back));
            }
          }};
}

StreamBytes SlabPool::take_bytes(std::size_t size) {
  CHECK(size <= kSlabBytes);
  const MutexLock lock(mutex_);
  if (!current_ || used_ + size > kSlabBytes) {
    current_ = take();
    used_ = 0;
  }
  used_ += size;
  return {.slab = current_, .bytes = current_->bytes().subspan(used_ - size, size)};
}

}  // namespace samepage::migrator
