// The promise under test: bytes come back as they were packed, and a damaged packing is kCorrupt
// and takes no more memory than the size that the reader expects.

#include "migrator/packed_bytes.h"

#include <random>

#include <gtest/gtest.h>

#include "tests/fakes/fake_qemu_stream.h"

namespace samepage::migrator {
namespace {

using Bytes = std::vector<std::byte>;

Bytes pack(const Bytes& bytes, int level = 1) {
  BytePacker packer;
  ByteWriter message;
  packer.pack(bytes, level, message);
  return message.take();
}

Result<Bytes> unpack(const Bytes& packed, std::size_t size_max) {
  ByteReader reader(packed);
  ByteUnpacker unpacker;
  const auto bytes = TRY(unpacker.unpack(reader, size_max));
  return Bytes(bytes.begin(), bytes.end());
}

TEST(PackedBytesTest, ReturnsWhatWasPacked) {
  std::mt19937_64 random(3);
  for (const Bytes& bytes :
       {Bytes(), Bytes(1), Bytes(100'000, std::byte{7}), fakes::random_bytes(100'000, random)}) {
    EXPECT_EQ(unpack(pack(bytes), bytes.size()).value(), bytes);
    EXPECT_EQ(unpack(pack(bytes, kPackNothing), bytes.size()).value(), bytes);
  }
}

TEST(PackedBytesTest, CompressesOnlyWhenItPays) {
  std::mt19937_64 random(4);

  EXPECT_LT(pack(Bytes(100'000)).size(), 100U);
  EXPECT_GT(pack(Bytes(100'000), kPackNothing).size(), 100'000U);
  EXPECT_LE(pack(fakes::random_bytes(100'000, random)).size(), 100'004U);
}

TEST(PackedBytesTest, RefusesMoreThanItsBound) {
  for (const Bytes& packed : {pack(Bytes(10'000)), pack(Bytes(5))}) {
    EXPECT_EQ(unpack(packed, 4).error().code(), Errc::kCorrupt);
  }
}

TEST(PackedBytesTest, RefusesEveryTruncation) {
  const Bytes packed = pack(Bytes(10'000, std::byte{1}));
  for (std::size_t size = 0; size < packed.size(); ++size) {
    const Bytes cut(packed.begin(), packed.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_EQ(unpack(cut, 10'000).error().code(), Errc::kCorrupt) << size;
  }
}

TEST(PackedBytesTest, RefusesAnUnknownCoding) {
  Bytes packed = pack(Bytes(10'000));
  packed[0] = std::byte{2};
  EXPECT_EQ(unpack(packed, 10'000).error().code(), Errc::kCorrupt);
}

}  // namespace
}  // namespace samepage::migrator
