#include "imagestore/arena.h"

#include <algorithm>
#include <cerrno>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>

#include "core/check.h"
#include "core/random_bytes.h"
#include "imagestore/extent_source.h"

namespace samepage::imagestore {
namespace {

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010  // <linux/fcntl.h>, which glibc's own header hides.
#endif

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26U)  // <linux/memfd.h>, which glibc's own header does not go with.
#endif

constexpr std::uint64_t kAlignment = 4096;
constexpr std::uint64_t kHugePage = 2U << 20U;

std::uint64_t aligned(std::uint64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

Error refused(const std::string& what) {
  return {Errc::kIo, what + ": " + std::generic_category().message(errno)};
}

Result<ArenaGeometry> plan(const Arena::Options& options) {
  const bool is_sane =
      options.extent_bytes_mean >= kPageSize && options.data_bytes >= 4 * options.gap_bytes &&
      options.data_bytes >= 2 * options.region_bytes_max && options.data_bytes <= (1ULL << 43U);
  if (!is_sane) {
    return fail(Errc::kInvalid,
                "an arena holds at least twice its largest region and four times "
                "its gap, and extents have at least a page");
  }
  ArenaGeometry geometry;
  TRY(fill_random(std::as_writable_bytes(std::span(&geometry.instance, 1))));
  const std::uint64_t extents = options.data_bytes / options.extent_bytes_mean;
  geometry.buckets = std::max<std::uint64_t>(extents * 16 / 10 / kBucketEntries, 16);
  geometry.index_offset = kArenaHeaderBytes;
  geometry.data_offset = aligned(geometry.index_offset + geometry.buckets * kBucketBytes);
  geometry.data_bytes = aligned(options.data_bytes);
  if (options.use_huge_pages) {
    const std::uint64_t rest = geometry.bytes() % kHugePage;
    if (rest != 0) geometry.data_bytes += kHugePage - rest;
  }
  return geometry;
}

}  // namespace

Result<IndexEntry> describe_object(const ObjectName& name, std::span<const std::byte> bytes,
                                   const DomainKeys& keys) {
  thread_local const auto buffer = ExtentBuffer::create();
  TRY(buffer->load(name, bytes, keys));
  const auto view = TRY(view_extent(bytes, keys));
  return IndexEntry{.name = name,
                    .offset = 0,
                    .bytes = static_cast<std::uint32_t>(bytes.size()),
                    .pages = static_cast<std::uint8_t>(view.count),
                    .is_compressed = view.is_compressed,
                    .checksum = extent_checksum(name, bytes)};
}

Result<std::unique_ptr<Arena>> Arena::create(const Options& options) {
  const ArenaGeometry geometry = TRY(plan(options));
  if (options.use_huge_pages) {
    if (auto arena = map(options, geometry, true)) return arena;
  }
  return map(options, geometry, false);
}

Result<std::unique_ptr<Arena>> Arena::map(const Options& options, const ArenaGeometry& geometry,
                                          bool with_huge_pages) {
  const unsigned kind = with_huge_pages ? MFD_HUGETLB | MFD_HUGE_2MB : 0U;
  Fd memfd(::memfd_create("samepage-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING | kind));
  if (!memfd) return tl::unexpected(refused("create an arena"));
  const std::uint64_t bytes = geometry.bytes();
  if (::ftruncate(memfd.get(), static_cast<off_t>(bytes)) != 0) {
    return tl::unexpected(refused("size an arena"));
  }
  void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd.get(), 0);
  if (memory == MAP_FAILED) return tl::unexpected(refused("map an arena"));
  std::unique_ptr<Arena> arena(
      new Arena(options, geometry, std::move(memfd), {static_cast<std::byte*>(memory), bytes}));
  arena->has_huge_pages_ = with_huge_pages;
  // Our own mapping stays writable; no other can be made, by us or by whom the memfd is handed to.
  constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
  if (::fcntl(arena->descriptor(), F_ADD_SEALS, kSeals) != 0) {
    return tl::unexpected(refused("seal an arena"));
  }
  return arena;
}

Arena::Arena(const Options& options, const ArenaGeometry& geometry, Fd memfd,
             std::span<std::byte> memory)
    : options_(options),
      geometry_(geometry),
      memfd_(std::move(memfd)),
      memory_(memory),
      index_(std::make_unique<ExtentIndex>(geometry, memory)) {}

Arena::~Arena() {
  ::munmap(memory_.data(), memory_.size());
}

Result<Arena::Region> Arena::reserve(std::uint64_t bytes, Deadline expires, Deadline now) {
  if (bytes == 0 || bytes > options_.region_bytes_max) {
    return fail(Errc::kInvalid, "a region has 1 to " + std::to_string(options_.region_bytes_max) +
                                    " bytes, not " + std::to_string(bytes));
  }
  const std::uint64_t size = aligned(bytes);
  std::uint64_t begin = head_;
  if (begin + size > geometry_.data_bytes) {
    // The rest of the ring is too short for the region: what lies there goes too.
    TRY(make_way(begin, geometry_.data_bytes, now));
    begin = 0;
  }
  const std::uint64_t end = begin + size + options_.gap_bytes;
  TRY(make_way(begin, end, now));
  if (end > geometry_.data_bytes) TRY(make_way(0, end - geometry_.data_bytes, now));
  head_ = begin + size;
  const Region region{next_region_++, geometry_.data_offset + begin, size};
  placed_.push_back({.region = region, .is_open = true, .expires = expires, .names = {}});
  return region;
}

Result<void> Arena::make_way(std::uint64_t begin, std::uint64_t end, Deadline now) {
  // The regions in the way, if any, are the oldest: the ring is filled in order.
  while (!placed_.empty()) {
    const Placed& oldest = placed_.front();
    const std::uint64_t at = oldest.region.offset - geometry_.data_offset;
    if (at >= end || at + oldest.region.bytes <= begin) return {};
    if (oldest.is_open && now < oldest.expires) {
      return fail(Errc::kUnavailable, "the arena's oldest region is still being written");
    }
    evict(oldest);
    placed_.pop_front();
  }
  return {};
}

void Arena::evict(const Placed& placed) {
  for (const ObjectName& name : placed.names) {
    const auto entry = index_->find(name);
    // The name may have been retracted since, and published again elsewhere.
    const bool is_here = entry && entry->offset >= placed.region.offset &&
                         entry->offset < placed.region.offset + placed.region.bytes;
    if (!is_here) continue;
    retract(name);
    ++evicted_;
  }
}

Arena::Placed* Arena::find_region(std::uint64_t region) {
  const auto found = std::ranges::find_if(
      placed_, [region](const Placed& placed) { return placed.region.id == region; });
  return found == placed_.end() ? nullptr : &*found;
}

Result<std::size_t> Arena::publish(std::uint64_t region, std::span<const IndexEntry> entries) {
  Placed* const placed = find_region(region);
  if (placed == nullptr || !placed->is_open) {
    return fail(Errc::kNotFound, "the region was given up");
  }
  for (const IndexEntry& entry : entries) {
    const bool is_inside =
        entry.bytes > 0 && entry.bytes <= placed->region.bytes &&
        entry.offset >= placed->region.offset &&
        entry.offset - placed->region.offset <= placed->region.bytes - entry.bytes;
    if (!is_inside) return fail(Errc::kInvalid, "an extent lies outside of its region");
  }
  placed->is_open = false;
  std::size_t published = 0;
  for (const IndexEntry& entry : entries) {
    if (index_->find(entry.name)) continue;
    if (const auto gave_way = index_->insert(entry)) {
      extent_bytes_ -= gave_way->bytes;
      ++evicted_;
    }
    extent_bytes_ += entry.bytes;
    placed->names.push_back(entry.name);
    ++published;
  }
  return published;
}

void Arena::release(std::uint64_t region) {
  Placed* const placed = find_region(region);
  if (placed != nullptr) placed->is_open = false;
}

void Arena::retract(const ObjectName& name) {
  const auto entry = index_->find(name);
  if (!entry) return;
  extent_bytes_ -= entry->bytes;
  index_->erase(name);
}

Arena::Counts Arena::counts() const {
  Counts counts;
  counts.extents = index_->size();
  counts.extent_bytes = extent_bytes_;
  counts.evicted = evicted_;
  counts.regions_open = static_cast<std::uint64_t>(
      std::ranges::count_if(placed_, [](const Placed& placed) { return placed.is_open; }));
  return counts;
}

}  // namespace samepage::imagestore
