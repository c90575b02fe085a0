// The promise under test: whatever bytes an origin or a store node hands out, the decoders of
// manifest nodes, versions and extents give a value within its bounds, nodes that encode to the
// same bytes again, or kCorrupt (kInvalid for another
// release's); and no extent is believed that is not what its name says.

#include <algorithm>

#include "core/check.h"
#include "imagestore/extent.h"
#include "imagestore/extent_source.h"
#include "imagestore/manifest_node.h"
#include "tests/fuzz/fuzz_target.h"

namespace samepage::imagestore {
namespace {

const DomainKeys& keys() {
  static const DomainKeys made{DigestKey{}};
  return made;
}

PageRef some_page(std::uint8_t number) {
  PageRef ref;
  ref.digest.bytes.fill(std::byte{number});
  ref.place.extent.bytes.fill(static_cast<std::byte>(200 + number / 8));
  ref.place.slot = number % kExtentPagesMax;
  return ref;
}

Extent some_extent(std::size_t pages, bool compresses) {
  Extent extent;
  extent.pages.resize(pages * kPageSize);
  std::uint32_t state = 1;
  for (std::byte& byte : extent.pages) {
    state = state * 1'664'525U + 1'013'904'223U;
    byte = compresses ? std::byte{7} : static_cast<std::byte>(state >> 24U);
  }
  extent.digests.resize(pages);
  digest_pages(extent.pages, keys().pages, extent.digests);
  return extent;
}

void decode(std::span<const std::byte> bytes) {
  for (unsigned level = 0; level < kHeightMax; ++level) {
    const auto node = ManifestNode::decode(bytes, keys(), level);
    if (node) {
      CHECK(!node->empty());
      CHECK(std::ranges::equal(node->encode(keys()), bytes));
      CHECK(name_node(bytes, keys()).has_value());
    } else {
      const Errc code = node.error().code();
      CHECK(code == Errc::kCorrupt || code == Errc::kInvalid);
    }
  }
  if (const auto version = decode_version(bytes, keys())) {
    CHECK(version->size_bytes <= kImageBytesMax);
    CHECK(std::ranges::equal(encode(*version, keys()), bytes));
  }
  if (const auto extent = decode_extent(bytes, keys())) {
    CHECK(!extent->digests.empty());
    CHECK(extent->digests.size() <= kExtentPagesMax);
    CHECK(extent->pages.size() == extent->digests.size() * kPageSize);
    const auto buffer = ExtentBuffer::create();
    if (buffer->load(extent_name(extent->digests, keys()), bytes, keys())) {
      std::vector<PageDigest> digests(buffer->count());
      digest_pages(buffer->pages(), keys().pages, digests);
      CHECK(std::ranges::equal(digests, buffer->digests()));
    } else {
      CHECK(buffer->count() == 0);
    }
  }
}

}  // namespace
}  // namespace samepage::imagestore

std::vector<samepage::fuzz::Input> fuzz_seeds() {
  using namespace samepage::imagestore;  // NOLINT(google-build-using-namespace)
  ManifestNode leaf(0);
  for (std::uint8_t page = 0; page < 40; ++page) leaf.set_page(page * 5, some_page(page));
  ManifestNode inner(1);
  inner.set(3, some_page(9).digest);
  inner.set(255, some_page(10).digest);
  return {leaf.encode(keys()),
          inner.encode(keys()),
          encode({.size_bytes = 123'456'789, .root = some_page(1).digest}, keys()),
          encode({.size_bytes = 1, .root = {}}, keys()),
          encode_extent(some_extent(3, false), keys()).bytes,
          encode_extent(some_extent(32, true), keys()).bytes};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  samepage::imagestore::decode(samepage::fuzz::as_input(data, size));
  return 0;
}
