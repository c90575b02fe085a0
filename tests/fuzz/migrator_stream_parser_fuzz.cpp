// The promise under test: whatever the input and however it is cut into pieces, the parser's tokens
// are its bytes, in order, and a page token has room for its page.

#include <algorithm>
#include <cstring>
#include <random>

#include "core/check.h"
#include "migrator/stream_parser.h"
#include "tests/fakes/fake_qemu_stream.h"
#include "tests/fuzz/fuzz_target.h"

namespace samepage::migrator {
namespace {

/// Checks a token that must lie at the front of `input`, and returns what is behind it.
std::span<const std::byte> behind(const StreamToken& token, std::span<const std::byte> input) {
  CHECK(!token.bytes.empty());
  CHECK(token.bytes.size() <= input.size());
  CHECK(std::memcmp(token.bytes.data(), input.data(), token.bytes.size()) == 0);
  if (token.kind == StreamToken::Kind::kPage) CHECK(token.bytes.size() >= kPageSize);
  return input.subspan(token.bytes.size());
}

void parse(std::span<const std::byte> input, std::size_t piece) {
  StreamParser parser;
  std::span<const std::byte> seen = input.first(0);
  std::size_t read = 0;
  while (read < input.size()) {
    read = std::min(input.size(), read + piece);
    seen = input.subspan(static_cast<std::size_t>(seen.data() - input.data()),
                         read - static_cast<std::size_t>(seen.data() - input.data()));
    while (const auto token = parser.next(seen)) seen = behind(*token, seen);
    CHECK(seen.size() <= StreamParser::kRecordBytesMax || parser.opaque());
  }
  if (!seen.empty()) CHECK(behind(parser.drain(seen), seen).empty());
}

}  // namespace
}  // namespace samepage::migrator

std::vector<samepage::fuzz::Input> fuzz_seeds() {
  using samepage::fakes::fake_guest_stream;
  std::mt19937_64 random(1);
  return {fake_guest_stream(1, random, nullptr), fake_guest_stream(6, random, nullptr),
          samepage::fakes::fake_multifd_stream(3, random, nullptr)};
}

// The last byte says how long the pieces of the second attempt are.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto input = samepage::fuzz::as_input(data, size);
  samepage::migrator::parse(input, SIZE_MAX / 2);
  samepage::migrator::parse(input, 1 + std::size_t{data[size - 1]} * 37);
  return 0;
}
