#include "imagestore/extent_source.h"

#include <algorithm>
#include <string>
#include <utility>

#include <zstd.h>

#include "core/check.h"
#include "imagestore/extent_copy.h"

namespace samepage::imagestore {
namespace {

/// Bytes of an extent's object before its pages: header, count, digests, codec.
constexpr std::size_t lead_bytes(std::size_t pages) {
  return kObjectHeaderBytes + 2 + pages * sizeof(PageDigest);
}

}  // namespace

std::optional<std::size_t> ExtentBuffer::find(const PageDigest& digest) const {
  const auto all = digests();
  const auto found = std::find(all.begin(), all.end(), digest);
  if (found == all.end()) return std::nullopt;
  return static_cast<std::size_t>(found - all.begin());
}

Result<void> ExtentBuffer::verify(const ObjectName& name, const DomainKeys& keys) {
  std::array<PageDigest, kExtentPagesMax> actual;
  const auto computed = std::span(actual).first(count_);
  digest_pages(pages(), keys.pages, computed);
  const bool pages_match = std::equal(computed.begin(), computed.end(), digests_.begin());
  if (!pages_match || extent_name(digests(), keys) != name) {
    count_ = 0;
    return fail(Errc::kCorrupt, "an extent's pages do not match its name " + to_hex(name));
  }
  return {};
}

Result<void> ExtentBuffer::load(const ObjectName& name, std::span<const std::byte> bytes,
                                const DomainKeys& keys) {
  static_assert(lead_bytes(kExtentPagesMax) <= kLeadBytes);
  count_ = 0;
  const auto view = TRY(view_extent(bytes, keys));
  std::byte* const into = &bytes_[kLeadBytes];
  std::copy(view.digests.begin(), view.digests.end(),
            std::as_writable_bytes(std::span(digests_)).begin());
  const std::size_t size = view.count * kPageSize;
  if (view.is_compressed) {
    const std::size_t written = ZSTD_decompress(into, size, view.body.data(), view.body.size());
    if (ZSTD_isError(written) != 0 || written != size) {
      return fail(Errc::kCorrupt, "an extent does not decompress to its pages");
    }
  } else {
    std::copy(view.body.begin(), view.body.end(), into);
  }
  count_ = view.count;
  return verify(name, keys);
}

Result<std::span<std::byte>> ExtentBuffer::raw(std::size_t pages) {
  count_ = 0;
  raw_pages_ = 0;
  if (pages == 0 || pages > kExtentPagesMax) {
    return fail(Errc::kCorrupt, "no extent has " + std::to_string(pages) + " pages");
  }
  raw_pages_ = pages;
  const std::size_t lead = lead_bytes(pages);
  return std::span(&bytes_[kLeadBytes - lead], lead + pages * kPageSize);
}

Result<void> ExtentBuffer::verify_raw(const ObjectName& name, const DomainKeys& keys) {
  TRY(take_apart(keys));
  return verify(name, keys);
}

std::span<const std::byte> ExtentBuffer::raw_object() const {
  CHECK(raw_pages_ > 0);
  const std::size_t lead = lead_bytes(raw_pages_);
  return {&bytes_[kLeadBytes - lead], lead + raw_pages_ * kPageSize};
}

Result<void> ExtentBuffer::take_apart(const DomainKeys& keys) {
  const auto view = TRY(view_extent(raw_object(), keys));
  if (view.is_compressed || view.count != raw_pages_) {
    return fail(Errc::kCorrupt, "an extent is not what the index says");
  }
  std::copy(view.digests.begin(), view.digests.end(),
            std::as_writable_bytes(std::span(digests_)).begin());
  count_ = view.count;
  return {};
}

Result<void> ExtentBuffer::load_trusted(const ObjectName& name, std::span<const std::byte> bytes,
                                        std::size_t pages, std::uint64_t checksum,
                                        const DomainKeys& keys) {
  const auto object = TRY(raw(pages));
  if (object.size() != bytes.size()) {
    return fail(Errc::kCorrupt, "an extent is not as long as the index says");
  }
  if (copy_extent(name, bytes, object) != checksum) {
    return fail(Errc::kCorrupt, "extent " + to_hex(name) + " is damaged in its node's memory");
  }
  return take_apart(keys);
}

std::vector<std::byte> ExtentBuffer::encode_plain(const DomainKeys& keys) const {
  ByteWriter writer;
  write_header(writer, {.kind = ObjectKind::kExtent, .key_id = keys.id});
  writer.u8(static_cast<std::uint8_t>(count_));
  writer.raw(std::as_bytes(digests()));
  writer.u8(0);  // The codec: none.
  writer.raw(pages());
  return writer.take();
}

Result<void> fetch_extent(ExtentSource& source, const ObjectName& name, ExtentBuffer& into,
                          Deadline deadline) {
  CHECK(source.under_way() == 0);
  const ExtentFetch fetch{.tag = 0, .name = name, .into = &into};
  TRY(source.start({&fetch, 1}));
  auto done = source.poll(deadline);
  if (done.empty()) return fail(Errc::kTimedOut, "extent " + to_hex(name) + " took too long");
  return std::move(done.front().result);
}

Result<void> OriginExtents::start(std::span<const ExtentFetch> fetches) {
  if (waiting_.size() + fetches.size() > fetches_max_) {
    return fail(Errc::kUnavailable, "too many extents are being fetched");
  }
  waiting_.insert(waiting_.end(), fetches.begin(), fetches.end());
  return {};
}

std::vector<FetchedExtent> OriginExtents::poll(Deadline deadline) {
  std::vector<FetchedExtent> done;
  for (const ExtentFetch& waiting : waiting_) {
    if (!done.empty() && std::chrono::steady_clock::now() >= deadline) break;
    done.push_back({.tag = waiting.tag, .result = fetch(waiting)});
  }
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(done.size()));
  return done;
}

Result<void> OriginExtents::fetch(const ExtentFetch& fetch) {
  fetch.into->clear();
  const auto bytes = TRY(origin_.get(fetch.name));
  return fetch.into->load(fetch.name, bytes, keys_);
}

}  // namespace samepage::imagestore
