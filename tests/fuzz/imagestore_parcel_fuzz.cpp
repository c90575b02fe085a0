// The promise under test: a parcel of pages is what it was made of, or an error that says so;
// whatever is accepted lies within the disk and brings the bytes of its pages.

#include "core/check.h"
#include "imagestore/page_parcel.h"
#include "tests/fuzz/fuzz_target.h"

namespace samepage::imagestore {
namespace {

constexpr std::uint64_t kPages = 100'000;

PageParcel some_parcel(std::uint64_t runs) {
  PageParcel parcel;
  for (std::uint64_t i = 0; i < runs; ++i) {
    const bool has_data = i % 2 == 0;
    parcel.runs.push_back({.first = i * 300,
                           .count = has_data ? 1 : 1 + i % 290,
                           .state = has_data ? PageState::kWritten : PageState::kZero});
    if (has_data) parcel.bytes.resize(parcel.bytes.size() + kPageSize, std::byte(i * 3));
  }
  return parcel;
}

void check_parcel(std::span<const std::byte> bytes) {
  const auto parcel = decode_parcel(bytes, kPages);
  if (!parcel) {
    CHECK(parcel.error().code() == Errc::kCorrupt);
    return;
  }
  std::uint64_t end = 0;
  std::uint64_t written = 0;
  for (const StateRun& run : parcel->runs) {
    CHECK(run.first >= end);
    CHECK(run.count > 0);
    CHECK(run.state != PageState::kBase);
    if (run.state == PageState::kWritten) written += run.count;
    end = run.first + run.count;
  }
  CHECK(end <= kPages);
  CHECK(parcel->bytes.size() == written * kPageSize);
  const auto again = decode_parcel(encode_parcel(*parcel), kPages);
  CHECK(again.has_value());
  CHECK(again->runs == parcel->runs);
  CHECK(again->bytes == parcel->bytes);
}

}  // namespace
}  // namespace samepage::imagestore

std::vector<samepage::fuzz::Input> fuzz_seeds() {
  using namespace samepage::imagestore;  // NOLINT(google-build-using-namespace)
  std::vector<samepage::fuzz::Input> seeds;
  for (const std::uint64_t count : {0U, 1U, 2U, 40U}) {
    seeds.push_back(encode_parcel(some_parcel(count)));
  }
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  samepage::imagestore::check_parcel(samepage::fuzz::as_input(data, size));
  return 0;
}
