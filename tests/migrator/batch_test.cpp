// The promises under test: a batch stands for exactly the tokens that were added, runs cost next to
// nothing, and a body that no encoder wrote is kCorrupt within bounded memory.

#include "migrator/batch.h"

#include <algorithm>
#include <functional>
#include <random>

#include <gtest/gtest.h>

#include "core/byte_writer.h"
#include "migrator/page_delta.h"
#include "tests/fakes/fake_qemu_stream.h"
#include "tests/migrator/relay_harness.h"

namespace samepage::migrator {
namespace {

using Bytes = std::vector<std::byte>;
using Kind = StreamToken::Kind;

constexpr PageDigest kMac{.bytes = {std::byte{9}}};
constexpr std::uint64_t kBegin = 5'000'000;

BatchHeader header_for(std::size_t size) {
  return {.sequence = 7, .begin = kBegin, .size = size, .mac = kMac};
}

struct Decoded {
  BatchHeader header;
  Bytes stretch;
  std::vector<BatchGap> gaps;
  ByteUnpacker unpacker;  ///< That deltas are borrowed from.
};

Result<std::unique_ptr<Decoded>> decode(std::span<const std::byte> body) {
  auto decoded = std::make_unique<Decoded>();
  const BatchBody head = TRY(decode_batch_header(body));
  decoded->header = head.header;
  decoded->stretch.resize(head.header.size);
  decoded->gaps = TRY(decode_batch(head, decoded->unpacker, decoded->stretch));
  return decoded;
}

/// A page as it might have been before: it differs in a few bytes.
Bytes older_version(PageView page) {
  Bytes older(page.begin(), page.end());
  for (const std::size_t at : {0U, 700U, 703U, 4095U}) older[at] ^= std::byte{0x55};
  return older;
}

/// The tokens of `stream` as a batch; `choose` says how each page is sent.
EncodedBatch encode(std::span<const std::byte> stream, const std::function<BatchKind()>& choose,
                    int level = 1) {
  BatchEncoder batch;
  StreamParser parser;
  auto rest = stream;
  while (const auto token = parser.next(rest)) {
    rest = rest.subspan(token->bytes.size());
    if (token->kind == Kind::kZeroPage) batch.add_zero_page(*token);
    if (token->kind == Kind::kBytes) batch.add_literal(token->bytes);
    if (token->kind != Kind::kPage) continue;
    const std::uint64_t place = kBegin - kPageSize - token->header / kPageSize % 1000;
    switch (choose()) {
      case BatchKind::kFound:
        batch.add_found(*token, hash_page(token->page(), {1}));
        break;
      case BatchKind::kPlaced:
        batch.add_placed(*token);
        break;
      case BatchKind::kCopies:
        batch.add_copy(*token, place);
        break;
      case BatchKind::kDeltas: {
        const Bytes older = older_version(token->page());
        EXPECT_TRUE(batch.add_delta(*token, place, std::span(older).first<kPageSize>(), 100));
        break;
      }
      default:
        batch.add_page(*token);
    }
  }
  batch.add_literal(rest);
  return batch.finish(header_for(stream.size()), level);
}

/// Fills the gaps from `original`, and checks that each names what lies there.
Bytes fill(const Decoded& batch, std::span<const std::byte> original) {
  Bytes stream = batch.stretch;
  for (const BatchGap& gap : batch.gaps) {
    const auto page = original.subspan(gap.offset).first<kPageSize>();
    const PageBuffer to = std::span(stream).subspan(gap.offset).first<kPageSize>();
    std::ranges::copy(page, to.begin());
    if (gap.kind == BatchKind::kFound) {
      EXPECT_EQ(gap.hash, hash_page(page, {1}));
    }
    if (gap.kind == BatchKind::kDeltas) {
      std::ranges::copy(older_version(page), to.begin());
      EXPECT_TRUE(apply_delta(gap.delta, to));
    }
    if (!gap.is_ref()) {
      EXPECT_EQ(gap.place, kBegin - kPageSize - gap.page % 1000);
    }
  }
  return stream;
}

BatchKind any_kind(std::mt19937_64& random) {
  constexpr std::array kKinds{BatchKind::kPages, BatchKind::kFound, BatchKind::kPlaced,
                              BatchKind::kCopies, BatchKind::kDeltas};
  return kKinds[random() % kKinds.size()];
}

TEST(BatchTest, StandsForTheTokensThatWereAdded) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    const Bytes stream = fakes::fake_guest_stream(100, random, nullptr);

    const EncodedBatch batch = encode(
        stream, [&] { return any_kind(random); }, seed % 2 == 0 ? 1 : kPackNothing);
    const Bytes body = whole(batch);
    const auto decoded = decode(body).value();

    EXPECT_EQ(decoded->header.sequence, 7U);
    EXPECT_EQ(decoded->header.begin, kBegin);
    EXPECT_EQ(decoded->header.mac, kMac);
    EXPECT_EQ(fill(*decoded, stream), stream);
    std::vector<std::uint32_t> refs;
    for (const BatchGap& gap : decoded->gaps) {
      if (gap.is_ref()) refs.push_back(gap.offset);
    }
    EXPECT_GT(refs.size(), 0U);
    EXPECT_EQ(batch.ref_offsets, refs);
  }
}

TEST(BatchTest, APipesBatchCopiesNothing) {
  std::mt19937_64 random(3);
  const Bytes stream = fakes::random_bytes(10'000, random);
  const StreamBytes stretch = stretch_of(stream);
  const EncodedBatch batch = pipe_batch(header_for(stream.size()), stretch);

  EXPECT_EQ(batch.tail.bytes.data(), stretch.bytes.data());
  Bytes body = whole(batch);
  EXPECT_TRUE(decode_batch_header(body).value().is_pipe());
  EXPECT_EQ(decode(body).value()->stretch, stream);
  body.push_back(std::byte{0});
  EXPECT_FALSE(decode_batch_header(body).value().is_pipe());
  EXPECT_FALSE(decode_batch_header(std::span(body).first(body.size() - 2)).value().is_pipe());
}

TEST(BatchTest, CodesRunsInAFewBytes) {
  fakes::FakeQemuStream records;
  BatchEncoder batch;
  const Bytes page(kPageSize);
  for (std::uint64_t i = 0; i < 255; ++i) {
    fakes::FakeQemuStream record;
    const bool zero = i < 100;
    const std::uint64_t header = (i + 4) * kPageSize | (zero ? 0x22U : 0x28U);
    record.be64(header).raw(std::span(page).first(zero ? 1 : kPageSize));
    records.raw(record.view());
    const StreamToken token{.bytes = record.view(), .header = header};
    if (zero) {
      batch.add_zero_page(token);
    } else if (i < 200) {
      batch.add_placed(token);
    } else {
      batch.add_copy(token, (i - 200) * (kPageSize + 8));
    }
  }

  const EncodedBatch encoded = batch.finish(header_for(records.size()), 1);
  const auto decoded = decode(whole(encoded)).value();

  EXPECT_LT(encoded.size(), 120U);
  EXPECT_EQ(decoded->gaps.size(), 155U);
  for (const BatchGap& gap : decoded->gaps) {
    const auto header = std::span(decoded->stretch).subspan(gap.offset - 8, 8);
    EXPECT_TRUE(std::ranges::equal(header, records.view().subspan(gap.offset - 8, 8)));
  }
}

TEST(BatchTest, ALargeDifferenceIsNoDelta) {
  std::mt19937_64 random(4);
  const Bytes older = fakes::random_bytes(kPageSize, random);
  const Bytes newer = fakes::random_bytes(kPageSize, random);
  BatchEncoder batch;
  const StreamToken token{.bytes = newer};

  EXPECT_FALSE(batch.add_delta(token, 0, std::span(older).first<kPageSize>(), 1000));
  batch.add_page(token);

  EXPECT_EQ(decode(whole(batch.finish(header_for(kPageSize), 1))).value()->stretch, newer);
}

TEST(BatchTest, TheMacDependsOnTheStretchAndItsNumber) {
  const Bytes stretch(5000, std::byte{1});
  const PageDigest mac = stretch_mac({}, 3, stretch);

  EXPECT_EQ(mac, stretch_mac({}, 3, stretch));
  EXPECT_NE(mac, stretch_mac({}, 4, stretch));
  EXPECT_NE(mac, stretch_mac({}, 3, std::span(stretch).first(4999)));
  EXPECT_NE(mac, stretch_mac({{std::byte{1}}}, 3, stretch));
}

TEST(BatchTest, RefusesEveryTruncationAndTail) {
  std::mt19937_64 random(6);
  const Bytes stream = fakes::fake_guest_stream(12, random, nullptr);
  Bytes body = whole(encode(stream, [&] { return any_kind(random); }));

  for (std::size_t size = 0; size < body.size(); ++size) {
    const auto decoded = decode(std::span(body).first(size));
    ASSERT_EQ(decoded.error().code(), Errc::kCorrupt) << size;
  }
  body.push_back(std::byte{0});
  EXPECT_EQ(decode(body).error().code(), Errc::kCorrupt);
}

/// A body with these operations and nothing else.
Errc error_of(std::size_t size, std::initializer_list<std::uint64_t> ops) {
  ByteWriter body;
  body.varint(0);
  body.varint(kBegin);
  body.varint(size);
  body.raw(kMac.bytes);
  for (const std::uint64_t op : ops) body.varint(op);
  body.varint(0);
  BytePacker::announce_plain(0, body);
  const auto decoded = decode(body.view());
  return decoded ? Errc::kNotFound : decoded.error().code();
}

TEST(BatchTest, RefusesWhatIsNotItsStretch) {
  const auto op = [](std::uint64_t count, std::uint64_t kind) { return count << 4U | kind; };
  EXPECT_EQ(error_of(9, {op(1, 1), 0}), Errc::kNotFound);  // One zero page is fine.

  EXPECT_EQ(error_of(0, {}), Errc::kCorrupt);
  EXPECT_EQ(error_of(9, {}), Errc::kCorrupt);
  EXPECT_EQ(error_of(18, {op(1, 1), 0}), Errc::kCorrupt);
  EXPECT_EQ(error_of(9, {op(2, 1), 0}), Errc::kCorrupt);
  EXPECT_EQ(error_of(9, {op(UINT64_MAX >> 5U, 1), 0}), Errc::kCorrupt);
  EXPECT_EQ(error_of(9, {op(0, 1), op(1, 1), 0}), Errc::kCorrupt);
  EXPECT_EQ(error_of(9, {op(1, 7), 0}), Errc::kCorrupt);
  EXPECT_EQ(error_of(9, {op(1, 1 | 8), 0}), Errc::kCorrupt);
  EXPECT_EQ(error_of(9, {op(9, 0)}), Errc::kCorrupt);
  EXPECT_EQ(error_of(2 * kPageSize, {op(2, 4 | 8), 0}), Errc::kCorrupt);
}

TEST(BatchTest, RefusesPlacesThatDoNotLieBefore) {
  const auto copy_from = [](std::uint64_t place) {
    return error_of(kPageSize + 8, {1U << 4U | 5U, 0, place << 1U});
  };
  EXPECT_EQ(copy_from(0), Errc::kNotFound);
  EXPECT_EQ(copy_from(kBegin - kPageSize), Errc::kNotFound);
  EXPECT_EQ(copy_from(kBegin - kPageSize + 1), Errc::kCorrupt);
  EXPECT_EQ(copy_from(kBegin + 1), Errc::kCorrupt);
}

TEST(BatchTest, DecodesOrRefusesDamagedBodies) {
  std::mt19937_64 random(7);
  const Bytes stream = fakes::fake_guest_stream(16, random, nullptr);
  const Bytes body = whole(encode(stream, [&] { return any_kind(random); }));
  for (int round = 0; round < 5000; ++round) {
    Bytes damaged = body;
    const std::size_t range = round % 2 == 0 ? 96 : damaged.size();
    damaged[random() % range] = static_cast<std::byte>(random());
    const auto decoded = decode(damaged);
    if (!decoded) {
      ASSERT_EQ(decoded.error().code(), Errc::kCorrupt);
      continue;
    }
    for (const BatchGap& gap : (*decoded)->gaps) {
      ASSERT_LE(gap.offset + kPageSize, (*decoded)->stretch.size());
    }
  }
}

}  // namespace
}  // namespace samepage::migrator
