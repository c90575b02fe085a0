// The promise under test: a fingerprint counts pages exactly, survives the bus unchanged within its
// size limit, and nothing that a scan does not make is parsed.

#include "fingerprinter/fingerprint.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include <gtest/gtest.h>

#include "core/byte_writer.h"
#include "fingerprinter/band_coder.h"
#include "fingerprinter/sketch_kernels.h"
#include "tests/fingerprinter/page_sets.h"

namespace samepage::fingerprinter {
namespace {

bool same_sketch(const Fingerprint& a, const Fingerprint& b) {
  for (std::size_t i = 0; i < Sketch::kBands; ++i) {
    if (!std::ranges::equal(a.sketch().band(i), b.sketch().band(i))) return false;
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
  constexpr std::size_t kCells = 1U << 16U;
  Scan scan;
  for (std::size_t band = 0; band < Sketch::kBands; ++band) {
    for (std::uint64_t cell = 0; cell < kCells; ++cell) {
      const std::uint64_t range = std::uint64_t{1} << (63U - band);
      scan.hashed.push_back({0, PageHash{range | cell << 2U}});
    }
  }
  scan.pages = scan.hashed.size();
  const Fingerprint fingerprint = Fingerprint::of(scan);

  const auto parsed = Fingerprint::parse(fingerprint.serialize());

  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_TRUE(same_sketch(*parsed, fingerprint));
  for (std::size_t i = 0; i < Sketch::kBands; ++i) {
    EXPECT_EQ(parsed->occupied(i), parsed->sketch().shape().cells);
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

/// A serialized fingerprint of 512 cells a band with the given counts; band 0 has the given cells.
std::vector<std::byte> forged(std::initializer_list<std::uint64_t> counts,
                              std::initializer_list<std::size_t> cells) {
  ByteWriter writer;
  writer.u32(0x32465053);
  for (const std::uint64_t count : counts) writer.varint(count);
  writer.u8(9);
  writer.varint(1);
  Sketch sketch(Sketch::Shape{});
  for (const std::size_t cell : cells) sketch.band(0)[cell / 64] |= std::uint64_t{1} << cell % 64;
  for (std::size_t i = 0; i < Sketch::kBands; ++i) write_band(sketch.band(i), writer);
  return writer.take();
}

TEST(FingerprintTest, RefusesCountsThatContradictEachOther) {
  EXPECT_TRUE(Fingerprint::parse(forged({10, 1, 2, 3, 4}, {0, 511})));
  EXPECT_EQ(Fingerprint::parse(forged({5, 1, 2, 3, 0}, {})).error().code(), Errc::kCorrupt);
  EXPECT_EQ(Fingerprint::parse(forged({5, 1, 2, 1, 2}, {})).error().code(), Errc::kCorrupt);
  EXPECT_EQ(Fingerprint::parse(forged({5, 1, 0, 3, 0}, {})).error().code(), Errc::kCorrupt);
  EXPECT_EQ(Fingerprint::parse(forged({10, 1, 1, 0, 0}, {0, 1})).error().code(), Errc::kCorrupt);
  EXPECT_EQ(Fingerprint::parse(forged({UINT64_MAX, UINT64_MAX, 2, 0, 0}, {})).error().code(),
            Errc::kCorrupt);
}

Result<void> read_band_of(std::initializer_list<int> bytes) {
  std::vector<std::byte> raw;
  for (const int byte : bytes) raw.push_back(static_cast<std::byte>(byte));
  ByteReader reader(raw);
  Sketch sketch(Sketch::Shape{});
  return read_band(reader, sketch.band(0));
}

TEST(BandCoderTest, RefusesWhatItDoesNotWrite) {
  EXPECT_TRUE(read_band_of({1, 0, 1, 1, 0b0111}));                                   // Cell 3.
  EXPECT_EQ(read_band_of({3, 0, 0, 0}).error().code(), Errc::kCorrupt);              // Form.
  EXPECT_EQ(read_band_of({1, 21, 1, 1, 0}).error().code(), Errc::kCorrupt);          // Code.
  EXPECT_EQ(read_band_of({1, 9, 1, 2, 1, 0}).error().code(), Errc::kCorrupt);        // Cell 512.
  EXPECT_EQ(read_band_of({1, 0, 1, 2, 0b0111, 0}).error().code(), Errc::kCorrupt);   // Size.
  EXPECT_EQ(read_band_of({1, 0, 1, 1, 0b10111}).error().code(), Errc::kCorrupt);     // Padding.
  EXPECT_EQ(read_band_of({1, 0, 9, 1, 0xFF}).error().code(), Errc::kCorrupt);        // Ends early.
  EXPECT_EQ(read_band_of({1, 0, 0x81, 0x04, 1, 0}).error().code(), Errc::kCorrupt);  // 513 cells.
}

TEST(BandCoderTest, CodesAnyBandWithinAFewPercentOfItsEntropy) {
  std::mt19937_64 random(12);
  for (const double fill : {0.0, 0.001, 0.03, 0.2, 0.45, 0.5, 0.7, 0.95, 0.999, 1.0}) {
    Sketch sketch({14, 1U << 14U});
    for (std::uint64_t& word : sketch.band(0)) {
      for (unsigned bit = 0; bit < 64; ++bit) {
        const double draw = std::uniform_real_distribution<double>()(random);
        if (draw < fill) word |= std::uint64_t{1} << bit;
      }
    }
    ByteWriter writer;
    write_band(sketch.band(0), writer);
    ByteReader reader(writer.view());
    Sketch read(sketch.shape());

    ASSERT_TRUE(read_band(reader, read.band(0))) << fill;
    EXPECT_TRUE(std::ranges::equal(read.band(0), sketch.band(0))) << fill;
    const double entropy =
        fill == 0 || fill == 1 ? 0 : -(fill * std::log2(fill) + (1 - fill) * std::log2(1 - fill));
    EXPECT_LT(static_cast<double>(writer.size()), 1.06 * entropy * (1U << 14U) / 8 + 24) << fill;
  }
}

TEST(FingerprintTest, KeepsToTheBytesThatItIsGiven) {
  std::mt19937_64 random(13);
  for (const std::size_t size : {4'000, 60'000, 700'000}) {
    const Hashes hashes = random_hashes(size, random);
    Scan scan;
    for (const PageHash hash : hashes) scan.hashed.push_back({scan.hashed.size(), hash});
    scan.pages = size;
    for (const std::size_t bytes : {2U << 10U, 8U << 10U, 32U << 10U, 128U << 10U}) {
      EXPECT_LE(Fingerprint::of(scan, bytes).serialize().size(), bytes) << size;
    }
  }
}

TEST(FingerprintTest, ADeltaMakesTheNewFingerprintOfTheOldOne) {
  std::mt19937_64 random(14);
  const Hashes kept = random_hashes(50'000, random);
  const Hashes gone = random_hashes(300, random);
  const Hashes come = random_hashes(200, random);
  const Fingerprint before = guest_of({&kept, &gone}, 3);
  const Fingerprint after = guest_of({&kept, &come}, 5);

  const std::vector<std::byte> delta = after.delta_since(before);
  const Fingerprint made = before.with_delta(delta).value();

  ASSERT_FALSE(delta.empty());
  EXPECT_LT(delta.size(), after.serialize().size() / 10);
  EXPECT_EQ(made.version(), after.version());
  EXPECT_EQ(made.counts(), after.counts());
  EXPECT_TRUE(same_sketch(made, after));
  EXPECT_EQ(after.with_delta(delta).error().code(), Errc::kInvalid);
  EXPECT_EQ(Fingerprint::parse(delta).error().code(), Errc::kCorrupt);
  for (std::size_t i = 0; i < delta.size(); ++i) {
    auto changed = delta;
    changed[i] ^= std::byte{0x10};
    const auto other = before.with_delta(changed);
    // Another code for the same cells is no harm.
    EXPECT_TRUE((other && other->version() == after.version()) ||
                other.error().code() == Errc::kCorrupt || other.error().code() == Errc::kInvalid);
    ASSERT_FALSE(before.with_delta(std::span(delta).first(i)));
  }
}

TEST(FingerprintTest, ADeltaBetweenSizesIsNone) {
  std::mt19937_64 random(15);
  const Hashes few = random_hashes(100, random);
  const Hashes many = random_hashes(400'000, random);
  EXPECT_TRUE(guest_of({&few}).delta_since(guest_of({&many})).empty());
}

TEST(FingerprintTest, ASmallSketchIsWhatALargeOneReducesTo) {
  std::mt19937_64 random(16);
  const Hashes hashes = random_hashes(100'000, random);
  Scan scan;
  for (const PageHash hash : hashes) scan.hashed.push_back({scan.hashed.size(), hash});
  scan.pages = hashes.size();
  const Fingerprint small = Fingerprint::of(scan, 4U << 10U);
  const Fingerprint large = Fingerprint::of(scan, 64U << 10U);

  ASSERT_LT(small.sketch().shape().resolution, large.sketch().shape().resolution);
  const Sketch reduced = large.sketch().reduced(small.sketch().shape());
  for (std::size_t i = 0; i < Sketch::kBands; ++i) {
    EXPECT_TRUE(std::ranges::equal(small.sketch().band(i), reduced.band(i)));
  }
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

TEST(SketchTest, EveryKernelCountsLikeThePlainLoop) {
  std::mt19937_64 random(4);
  for (const std::size_t words : {8U, 16U, 24U, 440U}) {
    std::vector<std::uint64_t> a(words);
    std::vector<std::uint64_t> b(words);
    std::size_t cells = 0;
    for (std::size_t i = 0; i < words; ++i) {
      a[i] = random() | random();
      b[i] = i % 5 == 0 ? ~std::uint64_t{0} : random();
      cells += static_cast<std::size_t>(std::popcount(a[i] & b[i]));
    }
    for (const Kernel kernel : supported_kernels()) {
      EXPECT_EQ(count_common(kernel, a, b), cells) << to_string(kernel);
    }
    EXPECT_EQ(count_common(a, b), cells);
  }
}

TEST(SketchTest, SharesOfTheBandsMakeUpTheWhole) {
  double sum = 0;
  for (std::size_t i = 0; i < Sketch::kBands; ++i) sum += Sketch::Shape{10, 1024}.share(i);
  EXPECT_EQ(sum, 1.0);
  EXPECT_EQ((Sketch::Shape{10, 512}.share(0)), 0.25);
}

}  // namespace
}  // namespace samepage::fingerprinter
