#include "imagestore/boot_trace.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <unordered_map>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "imagestore/manifest.h"

namespace samepage::imagestore {
namespace {

constexpr std::string_view kMark = "SPtrace";
constexpr std::uint8_t kFormat = 1;

std::uint64_t zigzag(std::uint64_t from, std::uint64_t to) {
  const auto step = static_cast<std::int64_t>(to - from);
  return (static_cast<std::uint64_t>(step) << 1U) ^ static_cast<std::uint64_t>(step >> 63);
}

std::uint64_t unzigzag(std::uint64_t from, std::uint64_t code) {
  return from + ((code >> 1U) ^ (~(code & 1U) + 1U));
}

Result<PageDigest> read_digest(ByteReader& reader) {
  PageDigest digest;
  const auto bytes = TRY(reader.raw(digest.bytes.size()));
  std::copy(bytes.begin(), bytes.end(), digest.bytes.begin());
  return digest;
}

}  // namespace

std::vector<std::uint64_t> BootTrace::numbers() const {
  std::vector<std::uint64_t> numbers(pages.size());
  std::transform(pages.begin(), pages.end(), numbers.begin(),
                 [](const TracedPage& page) { return page.page; });
  return numbers;
}

std::vector<PageDigest> BootTrace::digests() const {
  std::vector<PageDigest> digests(pages.size());
  std::transform(pages.begin(), pages.end(), digests.begin(),
                 [](const TracedPage& page) { return page.digest; });
  return digests;
}

std::vector<std::byte> encode_trace(const BootTrace& trace, const DomainKeys& keys) {
  ByteWriter writer;
  writer.raw(std::as_bytes(std::span(kMark)));
  writer.u8(kFormat);
  writer.u64(keys.id);
  writer.raw(trace.version.bytes);
  writer.varint(trace.pages.size());
  std::uint64_t last = 0;
  for (const TracedPage& page : trace.pages) {
    writer.varint(zigzag(last, page.page));
    writer.raw(page.digest.bytes);
    last = page.page;
  }
  const ObjectName seal = name_object(writer.view(), keys);
  writer.raw(seal.bytes);
  return writer.take();
}

Result<BootTrace> decode_trace(std::span<const std::byte> bytes, const DomainKeys& keys) {
  ByteReader reader(bytes);
  const auto mark = TRY(reader.raw(kMark.size()));
  if (std::memcmp(mark.data(), kMark.data(), mark.size()) != 0) {
    return fail(Errc::kCorrupt, "no boot trace");
  }
  if (TRY(reader.u8()) != kFormat) {
    return fail(Errc::kInvalid, "a boot trace of another release");
  }
  if (TRY(reader.u64()) != keys.id) {
    return fail(Errc::kCorrupt, "a boot trace of another sharing domain");
  }
  BootTrace trace;
  trace.version = TRY(read_digest(reader));
  const std::uint64_t count = TRY(reader.varint(kTracePagesMax));
  std::uint64_t last = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    TracedPage page;
    page.page = unzigzag(last, TRY(reader.varint()));
    if (page.page >= kImageBytesMax / kPageSize) {
      return fail(Errc::kCorrupt, "a boot trace with a page beyond any image");
    }
    page.digest = TRY(read_digest(reader));
    last = page.page;
    trace.pages.push_back(page);
  }
  const std::size_t covered = bytes.size() - reader.remaining();
  const PageDigest seal = TRY(read_digest(reader));
  if (!reader.at_end() || seal != name_object(bytes.first(covered), keys)) {
    return fail(Errc::kCorrupt, "a boot trace does not match its digest");
  }
  return trace;
}

Result<BootTrace> follow_trace(Origin& origin, const DomainKeys& keys, const BootTrace& trace,
                               const VersionId& version) {
  BootTrace followed{.version = version, .pages = trace.pages};
  if (trace.version == version) return followed;
  Manifest before = TRY(Manifest::open(origin, keys, trace.version));
  Manifest after = TRY(Manifest::open(origin, keys, version));
  std::unordered_map<PageDigest, std::uint64_t> moved;  // To where.
  std::unordered_map<std::uint64_t, bool> changed;
  TRY(Manifest::diff(before, after,
                     [&](std::uint64_t page, const std::optional<PageRef>&,
                         const std::optional<PageRef>& now) -> Result<void> {
                       changed.emplace(page, true);
                       if (now) moved.emplace(now->digest, page);
                       return {};
                     }));
  std::erase_if(followed.pages, [&](TracedPage& page) {
    if (!changed.contains(page.page)) return false;
    const auto found = moved.find(page.digest);
    if (found == moved.end()) return true;
    page.page = found->second;
    return false;
  });
  return followed;
}

Result<BootTrace> newest_trace(Catalog& catalog, const DomainKeys& keys, const std::string& image) {
  const auto versions = TRY(catalog.versions(image));
  for (auto version = versions.rbegin(); version != versions.rend(); ++version) {
    if (const auto body = TRY(catalog.trace(version->id, 0))) return decode_trace(*body, keys);
  }
  return fail(Errc::kNotFound, "no boot from image " + image + " was recorded");
}

void TraceRecorder::touch(std::uint64_t first, std::uint64_t count) {
  if (is_over_.load(std::memory_order_relaxed)) return;
  for (std::uint64_t page = first; page < first + count; ++page) {
    const std::uint64_t bit = std::uint64_t{1} << (page % 64);
    std::atomic<std::uint64_t>& word = seen_[page / 64];
    if ((word.load(std::memory_order_relaxed) & bit) != 0) continue;
    if ((word.fetch_or(bit) & bit) != 0) continue;
    const std::lock_guard lock(mutex_);
    if (pages_.size() < kTracePagesMax) pages_.push_back(page);
    if (pages_.size() == kTracePagesMax) is_over_ = true;
  }
}

void TraceRecorder::finish() {
  is_over_ = true;
}

std::vector<std::uint64_t> TraceRecorder::since(std::size_t from) const {
  const std::lock_guard lock(mutex_);
  if (from >= pages_.size()) return {};
  return {pages_.begin() + static_cast<long>(from), pages_.end()};
}

}  // namespace samepage::imagestore
