// The promises under test: a batch stands for exactly the tokens that were added, runs cost next to
// nothing, and a body that no builder wrote is kCorrupt within bounded memory.

#include "migrator/batch.h"

#include <algorithm>
#include <functional>
#include <random>

#include <gtest/gtest.h>

#include "core/byte_writer.h"
#include "tests/fakes/fake_qemu_stream.h"

namespace samepage::migrator {
namespace {

using Bytes = std::vector<std::byte>;
using Kind = StreamToken::Kind;

constexpr PageDigest kMac{.bytes = {std::byte{9}}};

PageRef ref_of(PageView page) {
  return {hash_page(page, {1}), digest_page(page, DigestKey{})};
}

Result<Batch> decode(std::span<const std::byte> body) {
  ByteUnpacker unpacker;
  return decode_batch(body, unpacker);
}

/// The tokens of `stream` as a batch; every page for which `known` says so is a reference.
Bytes encode(std::span<const std::byte> stream, const std::function<bool()>& known) {
  BatchBuilder builder(1);
  StreamParser parser;
  while (const auto token = parser.next(stream)) {
    stream = stream.subspan(token->bytes.size());
    if (token->kind == Kind::kZeroPage) {
      builder.add_zero_page(*token);
    } else if (token->kind == Kind::kPage && known()) {
      builder.add_page_ref(*token, ref_of(token->page()));
    } else {
      builder.add_literal(token->bytes);
    }
  }
  builder.add_literal(stream);
  return builder.finish(7, kMac);
}

/// Fills the holes from `original`, and checks that each names the page which lies there.
Bytes fill(const Batch& batch, const Bytes& original) {
  Bytes stream = batch.stream;
  for (const Batch::Hole& hole : batch.holes) {
    const auto page = std::span(original).subspan(hole.offset).first<kPageSize>();
    EXPECT_EQ(hole.ref.hash, ref_of(page).hash);
    EXPECT_EQ(hole.ref.digest, ref_of(page).digest);
    std::copy(page.begin(), page.end(), stream.begin() + hole.offset);
  }
  return stream;
}

TEST(BatchTest, StandsForTheTokensThatWereAdded) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    const Bytes stream = fakes::fake_guest_stream(100, random, nullptr);

    const Bytes body = encode(stream, [&] { return random() % 3 != 0; });
    const Batch batch = decode(body).value();

    EXPECT_EQ(batch.sequence, 7U);
    EXPECT_EQ(batch.mac, kMac);
    EXPECT_GT(batch.holes.size(), 0U);
    EXPECT_EQ(fill(batch, stream), stream);
  }
}

TEST(BatchTest, CarriesAnEmptyStretch) {
  const Batch batch = decode(BatchBuilder(1).finish(0, kMac)).value();

  EXPECT_TRUE(batch.stream.empty());
  EXPECT_TRUE(batch.holes.empty());
}

TEST(BatchTest, CodesRunsInAFewBytes) {
  fakes::FakeQemuStream zeros;
  for (std::uint64_t i = 0; i < 100'000; ++i) zeros.zero(i * kPageSize);
  StreamToken token{.kind = Kind::kZeroPage, .bytes = zeros.view().first(9), .header = 0x22};
  BatchBuilder builder(1);
  for (std::uint64_t i = 0; i < 100'000; ++i) {
    token.header = i * kPageSize | 0x22U;
    builder.add_zero_page(token);
  }

  const Bytes body = builder.finish(0, kMac);

  EXPECT_LT(body.size(), 64U);
  EXPECT_TRUE(std::ranges::equal(decode(body).value().stream, zeros.view()));
}

TEST(BatchTest, BreaksARunWhereOffsetsOrFlagsDo) {
  std::mt19937_64 random(5);
  const Bytes content = fakes::random_bytes(kPageSize, random);
  const PageView page = std::span(content).first<kPageSize>();
  BatchBuilder builder(1);
  fakes::FakeQemuStream all;
  for (const std::uint64_t header : {0x1028U, 0x2028U, 0x4028U, 0x5020U, 0x5028U}) {
    fakes::FakeQemuStream record;
    record.be64(header).raw(page);
    all.raw(record.view());
    builder.add_page_ref({.kind = Kind::kPage, .bytes = record.view(), .header = header},
                         ref_of(page));
  }

  const Batch batch = decode(builder.finish(0, kMac)).value();

  EXPECT_TRUE(std::ranges::equal(fill(batch, {all.view().begin(), all.view().end()}), all.view()));
}

TEST(BatchTest, RefusesEveryTruncation) {
  std::mt19937_64 random(6);
  const Bytes stream = fakes::fake_guest_stream(6, random, nullptr);
  const Bytes body = encode(stream, [&] { return random() % 2 == 0; });

  for (std::size_t size = 0; size < body.size(); ++size) {
    ASSERT_EQ(decode(std::span(body).first(size)).error().code(), Errc::kCorrupt) << size;
  }
}

TEST(BatchTest, RefusesTrailingBytes) {
  Bytes body = BatchBuilder(1).finish(0, kMac);
  body.push_back(std::byte{0});
  EXPECT_EQ(decode(body).error().code(), Errc::kCorrupt);
}

TEST(BatchTest, RefusesMoreThanItsShareOfTheStream) {
  for (const std::uint64_t code : {
           (kBatchStreamBytesMax + 1) << 2U,                  // literals
           (std::uint64_t{256} << 2U) | 1U,                   // page records
           (std::uint64_t{kBatchStreamBytesMax} << 2U) | 2U,  // zero pages
           (std::uint64_t{257} << 2U) | 3U,                   // pages
           std::uint64_t{UINT64_MAX},
       }) {
    ByteWriter body;
    body.u64(0);
    body.varint(code);
    body.u64(0x28);
    EXPECT_EQ(decode(body.view()).error().code(), Errc::kCorrupt) << code;
  }
}

TEST(BatchTest, RefusesAnOperationOfNoBytes) {
  for (const std::uint64_t kind : {1U, 2U, 3U}) {
    ByteWriter body;
    body.u64(0);
    body.varint(kind);
    EXPECT_EQ(decode(body.view()).error().code(), Errc::kCorrupt);
  }
}

TEST(BatchTest, DecodesOrRefusesDamagedBodies) {
  std::mt19937_64 random(7);
  const Bytes stream = fakes::fake_guest_stream(8, random, nullptr);
  const Bytes body = encode(stream, [&] { return random() % 2 == 0; });
  for (int round = 0; round < 5000; ++round) {
    Bytes damaged = body;
    const std::size_t range = round % 2 == 0 ? 64 : damaged.size();
    damaged[random() % range] = static_cast<std::byte>(random());
    const auto batch = decode(damaged);
    if (!batch) {
      ASSERT_EQ(batch.error().code(), Errc::kCorrupt);
      continue;
    }
    ASSERT_LE(batch->stream.size(), kBatchStreamBytesMax);
    for (const auto& hole : batch->holes) ASSERT_LE(hole.offset + kPageSize, batch->stream.size());
  }
}

}  // namespace
}  // namespace samepage::migrator
