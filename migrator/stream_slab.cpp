#include "migrator/stream_slab.h"

#include <algorithm>
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
  static_cast<void>(::madvise(memory, bytes, MADV_DONTDUMP));
  wake();
}

Slab::~Slab() {
  ::explicit_bzero(bytes_.data(), bytes_.size());
  static_cast<void>(::munmap(mapped_, mapped_bytes_));
}

void Slab::rest() {
  ::explicit_bzero(bytes_.data(), bytes_.size());
  static_cast<void>(::munlock(bytes_.data(), bytes_.size()));
  static_cast<void>(::madvise(bytes_.data(), bytes_.size(), MADV_FREE));
}

// For secrecy only: an agent without the right to lock memory works all the same.
void Slab::wake() {
  static_cast<void>(::mlock2(bytes_.data(), bytes_.size(), MLOCK_ONFAULT));
}

namespace {

struct FreeSlabs {
  Mutex mutex;
  std::vector<std::unique_ptr<Slab>> slabs GUARDED_BY(mutex);

  static FreeSlabs& of_this_process() {
    static FreeSlabs free;
    return free;
  }
};

void give_back(Slab* used) {
  std::unique_ptr<Slab> slab(used);
  slab->rest();
  FreeSlabs& free = FreeSlabs::of_this_process();
  const MutexLock lock(free.mutex);
  if (free.slabs.size() < SlabPool::kFreeMax) free.slabs.push_back(std::move(slab));
}

}  // namespace

std::shared_ptr<Slab> SlabPool::take() {
  std::unique_ptr<Slab> slab;
  {
    FreeSlabs& free = FreeSlabs::of_this_process();
    const MutexLock lock(free.mutex);
    if (!free.slabs.empty()) {
      slab = std::move(free.slabs.back());
      free.slabs.pop_back();
    }
  }
  if (slab) {
    slab->wake();
  } else {
    slab = std::make_unique<Slab>(kSlabBytes);
  }
  return {slab.release(), give_back};
}

void SlabPool::warm_up(std::size_t slabs, const std::stop_token& stop) {
  std::vector<std::shared_ptr<Slab>> touched;
  while (touched.size() < slabs && !stop.stop_requested()) {
    touched.push_back(take());
    std::ranges::fill(touched.back()->bytes(), std::byte{0});
  }
}

StreamBytes SlabPool::take_bytes(std::size_t size) {
  if (size > kSlabBytes) {
    auto own = std::make_shared<Slab>(size);
    return {.slab = own, .bytes = own->bytes()};
  }
  const MutexLock lock(mutex_);
  if (!current_ || used_ + size > kSlabBytes) {
    current_ = take();
    used_ = 0;
  }
  used_ += size;
  return {.slab = current_, .bytes = current_->bytes().subspan(used_ - size, size)};
}

void SlabPool::trim(StreamBytes& last, std::size_t size) {
  const MutexLock lock(mutex_);
  CHECK(size <= last.bytes.size());
  if (last.slab == current_) used_ -= last.bytes.size() - size;
  last.bytes = last.bytes.first(size);
}

std::span<std::byte> SlabScratch::bytes(std::size_t size) {
  if (!slab_ || slab_->bytes().size() < size) {
    slab_ = size > SlabPool::kSlabBytes ? std::make_shared<Slab>(size) : SlabPool::take();
  }
  return slab_->bytes().first(size);
}

}  // namespace samepage::migrator
