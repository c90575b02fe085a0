// The promise under test: a body is a batch within its bounds, or kCorrupt.

#include <random>

#include "core/check.h"
#include "migrator/batch.h"
#include "migrator/stream_parser.h"
#include "tests/fakes/fake_qemu_stream.h"
#include "tests/fuzz/fuzz_target.h"

namespace samepage::migrator {
namespace {

fuzz::Input encode(std::span<const std::byte> stream, std::mt19937_64& random) {
  BatchBuilder builder(1);
  StreamParser parser;
  while (const auto token = parser.next(stream)) {
    stream = stream.subspan(token->bytes.size());
    if (token->kind == StreamToken::Kind::kZeroPage) {
      builder.add_zero_page(*token);
    } else if (token->kind == StreamToken::Kind::kPage && random() % 2 == 0) {
      builder.add_page_ref(
          *token, {hash_page(token->page(), {1}), digest_page(token->page(), DigestKey{})});
    } else {
      builder.add_literal(token->bytes);
    }
  }
  return builder.finish(7, PageDigest{});
}

void decode(std::span<const std::byte> body) {
  ByteUnpacker unpacker;
  const auto batch = decode_batch(body, unpacker);
  if (!batch) {
    CHECK(batch.error().code() == Errc::kCorrupt);
    return;
  }
  CHECK(batch->stream.size() <= kBatchStreamBytesMax);
  CHECK(batch->holes.size() <= kBatchRefsMax);
  std::size_t end = 0;
  for (const Batch::Hole& hole : batch->holes) {
    CHECK(hole.offset >= end);
    end = hole.offset + kPageSize;
  }
  CHECK(end <= batch->stream.size());
}

}  // namespace
}  // namespace samepage::migrator

std::vector<samepage::fuzz::Input> fuzz_seeds() {
  std::mt19937_64 random(1);
  std::vector<samepage::fuzz::Input> seeds;
  for (const std::size_t pages : {1U, 4U, 12U}) {
    const auto stream = samepage::fakes::fake_guest_stream(pages, random, nullptr);
    seeds.push_back(samepage::migrator::encode(stream, random));
  }
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  samepage::migrator::decode(samepage::fuzz::as_input(data, size));
  return 0;
}
