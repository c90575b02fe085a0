// The promise under test: a serialized filter is read within its bound, answers every question and
// serializes to the same bytes again, or is kCorrupt.

#include <algorithm>

#include "core/check.h"
#include "fingerprinter/bloom_filter.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

constexpr std::size_t kBytesMax = 64U << 10U;

}  // namespace

std::vector<samepage::fuzz::Input> fuzz_seeds() {
  std::vector<samepage::fuzz::Input> seeds;
  for (const std::size_t pages : {1U, 50U, 400U}) {
    auto filter = samepage::fingerprinter::BloomFilter::sized_for(pages, 0.01);
    for (std::uint64_t i = 0; i < pages; ++i) filter.add({i * 0x9E3779B97F4A7C15});
    seeds.push_back(filter.serialize());
  }
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using samepage::Errc;
  const auto input = samepage::fuzz::as_input(data, size);
  const auto filter = samepage::fingerprinter::BloomFilter::parse(input, kBytesMax);
  if (!filter) {
    CHECK(filter.error().code() == Errc::kCorrupt);
    return 0;
  }
  CHECK(filter->cells() / 8 <= kBytesMax);
  for (std::uint64_t i = 0; i < 64; ++i) static_cast<void>(filter->lookup({i << 58U | i}));
  CHECK(std::ranges::equal(filter->serialize(), input));
  return 0;
}
