// The promise under test: a body is a batch within its bounds, or kCorrupt, and so are its deltas.

#include <random>

#include "core/check.h"
#include "migrator/batch.h"
#include "migrator/page_delta.h"
#include "migrator/stream_parser.h"
#include "tests/fakes/fake_qemu_stream.h"
#include "tests/fuzz/fuzz_target.h"

namespace samepage::migrator {
namespace {

constexpr std::uint64_t kBegin = 1U << 30U;

void add_page(const StreamToken& token, std::uint64_t choice, BatchEncoder& batch) {
  fuzz::Input older(token.page().begin(), token.page().end());
  older[choice % kPageSize] ^= std::byte{1};
  switch (choice % 5) {
    case 0:
      return batch.add_found(token, hash_page(token.page(), {1}));
    case 1:
      return batch.add_placed(token);
    case 2:
      return batch.add_copy(token, choice % (kBegin - kPageSize));
    case 3:
      CHECK(batch.add_delta(token, choice % (kBegin - kPageSize),
                            std::span(older).first<kPageSize>(), kPageSize));
      return;
    default:
      return batch.add_page(token);
  }
}

fuzz::Input encode(std::span<const std::byte> stream, std::mt19937_64& random) {
  BatchEncoder batch;
  StreamParser parser;
  for (auto rest = stream; const auto token = parser.next(rest);) {
    rest = rest.subspan(token->bytes.size());
    if (token->kind == StreamToken::Kind::kZeroPage) {
      batch.add_zero_page(*token);
    } else if (token->kind == StreamToken::Kind::kPage) {
      add_page(*token, random(), batch);
    } else {
      batch.add_literal(token->bytes);
    }
  }
  const auto encoded =
      batch.finish({.sequence = 7, .begin = kBegin, .size = stream.size(), .mac = {}}, 1);
  fuzz::Input body = encoded.head;
  body.insert(body.end(), encoded.tail.bytes.begin(), encoded.tail.bytes.end());
  return body;
}

void check(const BatchGap& gap, const BatchHeader& header) {
  if (gap.is_ref()) return;
  CHECK(gap.place <= header.begin);
  CHECK(header.begin - gap.place >= kPageSize);
  std::vector<std::byte> page(kPageSize);
  if (gap.kind == BatchKind::kDeltas) {
    CHECK(apply_delta(gap.delta, std::span(page).first<kPageSize>()).has_value());
  }
}

void decode(std::span<const std::byte> input) {
  const auto body = decode_batch_header(input);
  if (!body) {
    CHECK(body.error().code() == Errc::kCorrupt);
    return;
  }
  CHECK(body->header.size <= kBatchStreamBytesMax);
  ByteUnpacker unpacker;
  std::vector<std::byte> stretch(body->header.size);
  const auto gaps = decode_batch(*body, unpacker, stretch);
  if (!gaps) {
    CHECK(gaps.error().code() == Errc::kCorrupt);
    return;
  }
  CHECK(gaps->size() <= kBatchRefsMax);
  std::size_t end = 0;
  for (const BatchGap& gap : *gaps) {
    CHECK(gap.offset >= end);
    end = gap.offset + kPageSize;
    check(gap, body->header);
  }
  CHECK(end <= stretch.size());
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
