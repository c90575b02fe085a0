#include "imagestore/extent_index.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include <xxhash.h>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "core/check.h"

namespace samepage::imagestore {
namespace {

constexpr std::uint64_t kMagic = 0x31414E4552415053ULL;  // "SPARENA1" as little-endian bytes.
constexpr std::uint8_t kCompressed = 1;
constexpr std::size_t kCheckBytes = 8;
constexpr std::size_t kDescribedBytes = kIndexEntryBytes - kCheckBytes;
constexpr std::uint64_t kArenaBytesMax = 1ULL << 44U;
constexpr std::uint64_t kBucketsMax = 1ULL << 32U;

std::uint64_t checksum(std::span<const std::byte> bytes, std::uint64_t seed) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

std::uint64_t word(const ObjectName& name, std::size_t at) {
  std::uint64_t value = 0;
  std::memcpy(&value, &name.bytes.at(at), sizeof(value));
  return value;
}

}  // namespace

void encode_geometry(const ArenaGeometry& geometry, std::span<std::byte> header) {
  CHECK(header.size() == kArenaHeaderBytes);
  ByteWriter writer;
  writer.u64(kMagic);
  writer.u64(geometry.instance);
  writer.u64(geometry.buckets);
  writer.u64(geometry.index_offset);
  writer.u64(geometry.data_offset);
  writer.u64(geometry.data_bytes);
  writer.u64(checksum(writer.view(), 0));
  std::ranges::copy(writer.view(), header.begin());
}

Result<ArenaGeometry> decode_geometry(std::span<const std::byte> header) {
  ByteReader reader(header);
  ArenaGeometry geometry;
  if (TRY(reader.u64()) != kMagic) return fail(Errc::kCorrupt, "this memory is no arena");
  geometry.instance = TRY(reader.u64());
  geometry.buckets = TRY(reader.u64());
  geometry.index_offset = TRY(reader.u64());
  geometry.data_offset = TRY(reader.u64());
  geometry.data_bytes = TRY(reader.u64());
  const std::size_t described = header.size() - reader.remaining();
  if (TRY(reader.u64()) != checksum(header.first(described), 0)) {
    return fail(Errc::kCorrupt, "the arena's header is damaged");
  }
  const bool is_sane =
      geometry.buckets > 0 && geometry.buckets <= kBucketsMax &&
      geometry.index_offset >= kArenaHeaderBytes && geometry.index_offset <= kArenaBytesMax &&
      geometry.data_offset <= kArenaBytesMax && geometry.data_bytes <= kArenaBytesMax &&
      geometry.index_offset + geometry.buckets * kBucketBytes <= geometry.data_offset;
  if (!is_sane) return fail(Errc::kCorrupt, "the arena's sizes contradict each other");
  return geometry;
}

EntryBytes encode_entry(const IndexEntry& entry, const ArenaGeometry& geometry) {
  ByteWriter writer;
  writer.raw(entry.name.bytes);
  writer.u64(entry.offset);
  writer.u32(entry.bytes);
  writer.u8(entry.pages);
  writer.u8(entry.is_compressed ? kCompressed : 0);
  writer.u64(entry.checksum);
  while (writer.size() < kDescribedBytes) writer.u8(0);
  writer.u64(checksum(writer.view(), geometry.instance));
  EntryBytes bytes;
  std::ranges::copy(writer.view(), bytes.begin());
  return bytes;
}

std::optional<IndexEntry> decode_entry(std::span<const std::byte> bytes,
                                       const ArenaGeometry& geometry) {
  if (bytes.size() != kIndexEntryBytes) return std::nullopt;
  std::uint64_t check = 0;
  const auto described = bytes.first(kDescribedBytes);
  std::memcpy(&check, bytes.data() + described.size(), sizeof(check));
  if (check != checksum(described, geometry.instance)) return std::nullopt;

  IndexEntry entry;
  std::memcpy(entry.name.bytes.data(), bytes.data(), sizeof(entry.name.bytes));
  std::memcpy(&entry.offset, &bytes[32], sizeof(entry.offset));
  std::memcpy(&entry.bytes, &bytes[40], sizeof(entry.bytes));
  entry.pages = std::to_integer<std::uint8_t>(bytes[44]);
  entry.is_compressed = bytes[45] == std::byte{kCompressed};
  std::memcpy(&entry.checksum, &bytes[46], sizeof(entry.checksum));
  const bool is_inside = entry.offset >= geometry.data_offset && entry.bytes > 0 &&
                         entry.bytes <= kObjectBytesMax && entry.bytes <= geometry.data_bytes &&
                         entry.offset - geometry.data_offset <= geometry.data_bytes - entry.bytes;
  if (!is_inside || entry.pages == 0 || entry.pages > kExtentPagesMax) return std::nullopt;
  return entry;
}

std::array<std::uint64_t, 2> bucket_offsets(const ObjectName& name, const ArenaGeometry& geometry) {
  return {geometry.index_offset + word(name, 0) % geometry.buckets * kBucketBytes,
          geometry.index_offset + word(name, 8) % geometry.buckets * kBucketBytes};
}

std::optional<IndexEntry> find_in_bucket(std::span<const std::byte> bucket, const ObjectName& name,
                                         const ArenaGeometry& geometry) {
  for (std::size_t at = 0; at + kIndexEntryBytes <= bucket.size(); at += kIndexEntryBytes) {
    const auto bytes = bucket.subspan(at, kIndexEntryBytes);
    if (!std::equal(name.bytes.begin(), name.bytes.end(), bytes.begin())) continue;
    if (auto entry = decode_entry(bytes, geometry)) return entry;
  }
  return std::nullopt;
}

ExtentIndex::ExtentIndex(const ArenaGeometry& geometry, std::span<std::byte> memory)
    : geometry_(geometry), memory_(memory) {
  CHECK(memory.size() >= geometry.bytes());
  encode_geometry(geometry, memory.first(kArenaHeaderBytes));
}

std::uint64_t ExtentIndex::choose(const ObjectName& name) const {
  std::array<std::size_t, 2> free_entries{};
  std::array<std::uint64_t, 2> free_at{};
  std::uint64_t oldest_at = 0;
  std::uint64_t oldest_age = UINT64_MAX;
  const auto buckets = bucket_offsets(name, geometry_);
  for (std::size_t choice = 0; choice < 2; ++choice) {
    for (std::size_t i = 0; i < kBucketEntries; ++i) {
      const std::uint64_t offset = buckets.at(choice) + i * kIndexEntryBytes;
      const auto taken = taken_.find(offset);
      if (taken == taken_.end()) {
        ++free_entries.at(choice);
        free_at.at(choice) = offset;
      } else if (places_.at(taken->second).age < oldest_age) {
        oldest_age = places_.at(taken->second).age;
        oldest_at = offset;
      }
    }
  }
  if (free_entries[0] == 0 && free_entries[1] == 0) return oldest_at;
  return free_entries[0] >= free_entries[1] ? free_at[0] : free_at[1];
}

std::optional<IndexEntry> ExtentIndex::insert(const IndexEntry& entry) {
  erase(entry.name);
  const std::uint64_t offset = choose(entry.name);
  std::optional<IndexEntry> gave_way;
  if (const auto taken = taken_.find(offset); taken != taken_.end()) {
    gave_way = places_.at(taken->second).entry;
    erase(gave_way->name);
  }
  write(offset, entry);
  places_[entry.name] = {.offset = offset, .age = age_++, .entry = entry};
  taken_[offset] = entry.name;
  return gave_way;
}

void ExtentIndex::erase(const ObjectName& name) {
  const auto found = places_.find(name);
  if (found == places_.end()) return;
  wipe(found->second.offset);
  taken_.erase(found->second.offset);
  places_.erase(found);
}

std::optional<IndexEntry> ExtentIndex::find(const ObjectName& name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) return std::nullopt;
  return found->second.entry;
}

void ExtentIndex::restore(const ObjectName& name) {
  const auto found = places_.find(name);
  if (found != places_.end()) write(found->second.offset, found->second.entry);
}

void ExtentIndex::write(std::uint64_t offset, const IndexEntry& entry) {
  const EntryBytes bytes = encode_entry(entry, geometry_);
  const auto written = memory_.subspan(offset, kIndexEntryBytes);
  std::copy_n(bytes.begin(), kDescribedBytes, written.begin());
  // Without its checksum it is no entry: readers on other processors see the extent's bytes, and
  // what describes them, before they see an entry.
  std::uint64_t check = 0;
  std::memcpy(&check, &bytes[kDescribedBytes], sizeof(check));
  auto* const place = reinterpret_cast<std::uint64_t*>(&written[kDescribedBytes]);
  std::atomic_ref(*place).store(check, std::memory_order_release);
}

void ExtentIndex::wipe(std::uint64_t offset) {
  std::ranges::fill(memory_.subspan(offset, kIndexEntryBytes), std::byte{0});
}

}  // namespace samepage::imagestore
