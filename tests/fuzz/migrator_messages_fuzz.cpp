// The promise under test: every decoder of the relays' small messages gives a value within its
// bounds that encodes to the same bytes again, or kCorrupt (kInvalid for a foreign version).

#include <algorithm>

#include "core/check.h"
#include "migrator/batch.h"
#include "migrator/relay_messages.h"
#include "tests/fuzz/fuzz_target.h"

namespace samepage::migrator {
namespace {

bool same(const std::vector<std::byte>& encoded, std::span<const std::byte> body) {
  return std::ranges::equal(encoded, body);
}

void decode(std::span<const std::byte> body) {
  if (const auto hello = decode_hello(body)) {
    CHECK(same(encode_hello(*hello), body));
  } else {
    CHECK(hello.error().code() == Errc::kCorrupt || hello.error().code() == Errc::kInvalid);
  }
  if (const auto missing = decode_missing(body)) {
    CHECK(!missing->refs.empty());
    CHECK(missing->refs.back() < kBatchRefsMax);
    CHECK(std::ranges::is_sorted(missing->refs));
    CHECK(same(encode_missing(*missing), body));
  }
  ByteUnpacker unpacker;
  if (const auto resent = decode_resend(body, unpacker)) {
    CHECK(resent->pages.size() <= kBatchStreamBytesMax);
    CHECK(resent->pages.size() == resent->refs.size() * kPageSize);
  }
  if (const auto base = decode_base(body, unpacker)) CHECK(base->checks.size() <= kBasePagesMax);
  if (const auto doubt = decode_doubt(body)) CHECK(same(encode_doubt(*doubt), body));
  if (const auto ack = decode_ack(body)) CHECK(same(encode_ack(*ack), body));
  if (const auto arrived = decode_arrived(body)) CHECK(same(encode_arrived(*arrived), body));
  if (const auto end = decode_end(body)) CHECK(same(encode_end(*end), body));
}

}  // namespace
}  // namespace samepage::migrator

std::vector<samepage::fuzz::Input> fuzz_seeds() {
  using namespace samepage::migrator;  // NOLINT(google-build-using-namespace)
  BytePacker packer;
  const std::vector<std::byte> pages(3 * samepage::kPageSize);
  return {encode_hello({.history_bytes = 1U << 28U}),
          encode_missing({.sequence = 3, .refs = {0, 1, 200, 255}}),
          encode_resend({.sequence = 3, .refs = {1, 4, 9}, .pages = pages}, packer),
          encode_base({.checks = {1, 0, 0, 7, 65535}}, packer),
          encode_doubt({.sequence = 5, .digests = {{}, {std::byte{1}}}}),
          encode_ack({.sequence = 300, .template_pages = 7}),
          encode_end({.sequence = 9, .stream_bytes = 1U << 30U, .mac = {}})};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  samepage::migrator::decode(samepage::fuzz::as_input(data, size));
  return 0;
}
