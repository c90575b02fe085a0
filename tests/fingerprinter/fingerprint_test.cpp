// The promise under test: a fingerprint counts pages exactly, survives the bus unchanged within its
// size limit, and nothing that a scan does not make is parsed.

#include "fingerprinter/fingerprint.h"

#include <bit>

#include <gtest/gtest.h>

#include "core/byte_writer.h"
#include "tests/fingerprinter/page_sets.h"

namespace samepage::fingerprinter {
namespace {

bool same_sketch(const Fingerprint& a, const Fingerprint& b) {
  for (std::size_t i = 0; i < Sketch::kBands; ++i) {
    if (a.sketch().band(i).words != b.sketch().band(i).words) return false;
  }
  return true;
}

TEST(FingerprintTest, CountsZeroDuplicateAndUniquePages) {
  Scan scan;
  scan.pages = 100;
  scan.zero = 7;
  for (const std::uint64_t hash : {5, 9, 5, 5, 1}) {
    scan.hashed.push_back({scan.hashed.size(), PageHash{hash}});
  }

  const PageCounts counts = Fingerprint::of(scan).counts();

  EXPECT_EQ(counts.pages, 100U);
  EXPECT_EQ(counts.zero, 7U);
  EXPECT_EQ(counts.unique, 3U);
  EXPECT_EQ(counts.duplicate, 2U);
  EXPECT_EQ(counts.present(), 12U);
}

TEST(FingerprintTest, SurvivesTheBusAtEverySize) {
  std::mt19937_64 random(1);
  for (std::size_t size = 0; size <= (1U << 22U); size = size == 0 ? 1 : size * 4) {
    const Hashes hashes = random_hashes(size, random);
    const Fingerprint fingerprint = guest_of({&hashes}, 3);

    const std::vector<std::byte> bytes = fingerprint.serialize();
    const Fingerprint parsed = Fingerprint::parse(bytes).value();

    EXPECT_LE(bytes.size(), Fingerprint::kBytesMax);
    EXPECT_EQ(parsed.counts().unique, fingerprint.counts().unique);
    EXPECT_EQ(parsed.counts().zero, 3U);
    EXPECT_EQ(parsed.counts().pages, size + 3);
    EXPECT_TRUE(same_sketch(parsed, fingerprint)) << size;
  }
}

TEST(FingerprintTest, TheFullestSketchKeepsTheLimit) {
  Scan scan;
  for (std::size_t band = 0; band < Sketch::kBands; ++band) {
    for (std::uint64_t cell = 0; cell < Sketch::kBandCells; ++cell) {
      const std::uint64_t range = std::uint64_t{1} << (63U - band);
      scan.hashed.push_back({0, PageHash{range | cell}});
    }
  }
  scan.pages = scan.hashed.size();
  const Fingerprint fingerprint = Fingerprint::of(scan);

  const auto parsed = Fingerprint::parse(fingerprint.serialize());

  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_TRUE(same_sketch(*parsed, fingerprint));
  for (std::size_t i = 0; i < Sketch::kBands; ++i) {
    EXPECT_EQ(parsed->occupied(i), Sketch::kBandCells);
  }
}

TEST(FingerprintTest, RefusesEveryTruncationAndWhatFollows) {
  std::mt19937_64 random(2);
  const Hashes hashes = random_hashes(3000, random);
  std::vector<std::byte> bytes = guest_of({&hashes}).serialize();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const auto parsed = Fingerprint::parse(std::span(bytes).first(size));
    ASSERT_EQ(parsed.error().code(), Errc::kCorrupt) << size;
  }
  bytes.push_back(std::byte{0});
  EXPECT_EQ(Fingerprint::parse(bytes).error().code(), Errc::kCorrupt);
  bytes.resize(Fingerprint::kBytesMax + 1);
  EXPECT_EQ(Fingerprint::parse(bytes).error().code(), Errc::kCorrupt);
}

/// A serialized fingerprint with the given counts; band 0 is sparse with the given gaps.
std::vector<std::byte> forged(std::initializer_list<std::uint64_t> counts,
                              std::initializer_list<std::uint64_t> gaps) {
  ByteWriter writer;
  writer.u32(0x31465053);
  for (const std::uint64_t count : counts) writer.varint(count);
  writer.u8(1);
  writer.varint(gaps.size());
  for (const std::uint64_t gap : gaps) writer.varint(gap);
  for (std::size_t i = 1; i < Sketch::kBands; ++i) {
    writer.u8(1);
    writer.varint(0);
  }
  return writer.take();
}

TEST(FingerprintTest, RefusesCountsThatContradictEachOther) {
  EXPECT_TRUE(Fingerprint::parse(forged({10, 1, 2, 3}, {0, 32766})));
  EXPECT_EQ(Fingerprint::parse(forged({5, 1, 2, 3}, {})).error().code(), Errc::kCorrupt);
  EXPECT_EQ(Fingerprint::parse(forged({5, 1, 0, 3}, {})).error().code(), Errc::kCorrupt);
  EXPECT_EQ(Fingerprint::parse(forged({10, 1, 1, 0}, {0, 1})).error().code(), Errc::kCorrupt);
  EXPECT_EQ(Fingerprint::parse(forged({UINT64_MAX, UINT64_MAX, 2, 0}, {})).error().code(),
            Errc::kCorrupt);
}

TEST(FingerprintTest, RefusesCellsBeyondTheirBandAndUnknownForms) {
  EXPECT_EQ(Fingerprint::parse(forged({10, 0, 9, 0}, {0, 32767})).error().code(), Errc::kCorrupt);
  EXPECT_EQ(Fingerprint::parse(forged({10, 0, 9, 0}, {32768})).error().code(), Errc::kCorrupt);
  auto bytes = forged({10, 0, 9, 0}, {});
  bytes.end()[-2] = std::byte{2};
  EXPECT_EQ(Fingerprint::parse(bytes).error().code(), Errc::kCorrupt);
}

TEST(FingerprintTest, ParsesOrRefusesAnyChangedByte) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  const Hashes hashes = random_hashes(20'000, random);
  const std::vector<std::byte> bytes = guest_of({&hashes}).serialize();
  for (int i = 0; i < 2000; ++i) {
    auto changed = bytes;
    changed[random() % (i % 2 == 0 ? changed.size() : 32)] = static_cast<std::byte>(random());
    const auto parsed = Fingerprint::parse(changed);
    EXPECT_TRUE(parsed || parsed.error().code() == Errc::kCorrupt);
  }
}

TEST(FingerprintTest, MergesGuestsIntoOne) {
  std::mt19937_64 random(3);
  const Hashes common = random_hashes(20'000, random);
  const Hashes own_a = random_hashes(30'000, random);
  const Hashes own_b = random_hashes(5'000, random);
  const std::vector<Fingerprint> guests = {guest_of({&common, &own_a}, 10),
                                           guest_of({&common, &own_b, &own_b}, 20)};

  const Fingerprint merged = Fingerprint::merge(guests);

  EXPECT_TRUE(same_sketch(merged, guest_of({&common, &own_a, &own_b})));
  EXPECT_EQ(merged.counts().pages, guests[0].counts().pages + guests[1].counts().pages);
  EXPECT_EQ(merged.counts().zero, 30U);
  EXPECT_EQ(merged.counts().present(), merged.counts().pages);
  EXPECT_NEAR(static_cast<double>(merged.counts().unique), 55'000, 600);
  EXPECT_TRUE(Fingerprint::parse(merged.serialize()));
}

TEST(SketchTest, CountsCellsLikeThePlainLoop) {
  std::mt19937_64 random(4);
  Sketch::Band a;
  Sketch::Band b;
  std::size_t cells = 0;
  for (std::size_t i = 0; i < Sketch::kBandWords; ++i) {
    a.words[i] = random() & random();
    b.words[i] = random() & random();
    cells += static_cast<std::size_t>(std::popcount(a.words[i] | b.words[i]));
  }
  EXPECT_EQ(count_cells(a, b), cells);
}

TEST(SketchTest, SharesOfTheBandsMakeUpTheWhole) {
  double sum = 0;
  for (std::size_t i = 0; i < Sketch::kBands; ++i) sum += Sketch::share(i);
  EXPECT_EQ(sum, 1.0);
}

}  // namespace
}  // namespace samepage::fingerprinter
