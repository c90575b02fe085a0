// The promise under test: whatever a store node's memory holds, a reader gets from its header a
// geometry that does not contradict itself, or kCorrupt, and from a bucket an entry of the name it
// looks for that lies inside of the data, or none.

#include <algorithm>

#include "core/check.h"
#include "imagestore/extent_index.h"
#include "tests/fuzz/fuzz_target.h"

namespace samepage::imagestore {
namespace {

ArenaGeometry geometry() {
  return {.instance = 0x5eed,
          .buckets = 64,
          .index_offset = kArenaHeaderBytes,
          .data_offset = kArenaHeaderBytes + 64 * kBucketBytes,
          .data_bytes = 1U << 24U};
}

IndexEntry entry(std::uint8_t number) {
  IndexEntry entry;
  entry.name.bytes.fill(std::byte{number});
  entry.offset = geometry().data_offset + number * 65'536U;
  entry.bytes = 40'000;
  entry.pages = 9;
  return entry;
}

void decode(std::span<const std::byte> bytes) {
  if (const auto known = decode_geometry(bytes)) {
    CHECK(known->buckets > 0);
    CHECK(known->index_offset <= known->data_offset);
    CHECK(known->data_offset <= known->bytes());
    for (const std::uint64_t offset : bucket_offsets(entry(1).name, *known)) {
      CHECK(offset >= known->index_offset);
      CHECK(offset + kBucketBytes <= known->data_offset);
    }
  }
  for (std::uint8_t number = 0; number < 4; ++number) {
    const auto found = find_in_bucket(bytes, entry(number).name, geometry());
    if (!found) continue;
    CHECK(found->name == entry(number).name);
    CHECK(found->bytes > 0);
    CHECK(found->offset >= geometry().data_offset);
    CHECK(found->bytes <= geometry().bytes() - found->offset);
  }
}

}  // namespace
}  // namespace samepage::imagestore

std::vector<samepage::fuzz::Input> fuzz_seeds() {
  using namespace samepage::imagestore;  // NOLINT(google-build-using-namespace)
  samepage::fuzz::Input header(kArenaHeaderBytes);
  encode_geometry(geometry(), header);
  samepage::fuzz::Input bucket;
  for (std::uint8_t number = 0; number < kBucketEntries; ++number) {
    const EntryBytes bytes = encode_entry(entry(number), geometry());
    bucket.insert(bucket.end(), bytes.begin(), bytes.end());
  }
  return {header, bucket};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  samepage::imagestore::decode(samepage::fuzz::as_input(data, size));
  return 0;
}
