// The promise under test: a log of an overlay or a boot trace is what it was encoded from, or an
// error that says so; whatever is accepted lies within its bounds.

#include "core/check.h"
#include "imagestore/boot_trace.h"
#include "imagestore/overlay_log.h"
#include "tests/fuzz/fuzz_target.h"

namespace samepage::imagestore {
namespace {

constexpr std::uint64_t kPages = 100'000;

OverlayRecord some_record(std::uint64_t runs) {
  OverlayRecord record;
  record.committed.bytes.fill(std::byte{5});
  for (std::uint64_t i = 0; i < runs; ++i) {
    record.runs.push_back({.first = i * 300,
                           .count = 1 + i % 290,
                           .state = i % 2 == 0 ? PageState::kWritten : PageState::kZero});
  }
  return record;
}

BootTrace some_trace(std::uint64_t pages) {
  BootTrace trace;
  for (std::uint64_t i = 0; i < pages; ++i) {
    trace.pages.push_back({.page = i * 7919 % kPages, .digest = {}});
  }
  return trace;
}

void check_record(std::span<const std::byte> bytes) {
  const auto decoded = decode_overlay_record(bytes, kPages);
  if (!decoded) {
    CHECK(decoded.error().code() == Errc::kCorrupt);
    return;
  }
  CHECK(decoded->bytes <= bytes.size());
  std::uint64_t end = 0;
  for (const StateRun& run : decoded->record.runs) {
    CHECK(run.first >= end);
    CHECK(run.count > 0);
    end = run.first + run.count;
  }
  CHECK(end <= kPages);
}

void check_trace(std::span<const std::byte> bytes) {
  const DomainKeys keys{DigestKey{}};
  const auto trace = decode_trace(bytes, keys);
  if (!trace) return;
  CHECK(trace->pages.size() <= kTracePagesMax);
  CHECK(decode_trace(encode_trace(*trace, keys), keys)->pages == trace->pages);
}

}  // namespace
}  // namespace samepage::imagestore

std::vector<samepage::fuzz::Input> fuzz_seeds() {
  using namespace samepage::imagestore;  // NOLINT(google-build-using-namespace)
  std::vector<samepage::fuzz::Input> seeds;
  for (const std::uint64_t count : {0U, 1U, 40U}) {
    seeds.push_back(encode_overlay_record(some_record(count)));
    seeds.push_back(encode_trace(some_trace(count), DomainKeys{samepage::DigestKey{}}));
  }
  seeds.push_back(encode_overlay_header({.base = {}, .size_bytes = 1U << 30U}));
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = samepage::fuzz::as_input(data, size);
  samepage::imagestore::check_record(bytes);
  samepage::imagestore::check_trace(bytes);
  if (const auto root = samepage::imagestore::decode_overlay_header(bytes)) {
    CHECK(root->size_bytes <= samepage::imagestore::kImageBytesMax);
  }
  return 0;
}
