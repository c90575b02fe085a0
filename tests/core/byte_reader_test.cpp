// The promise under test: whatever ByteWriter wrote, ByteReader returns; whatever is cut, too long
// or not canonical is kCorrupt and never read past its end.

#include "core/byte_reader.h"

#include <gtest/gtest.h>

#include "core/byte_writer.h"

namespace samepage {
namespace {

TEST(ByteReaderTest, ReturnsWhatWasWritten) {
  ByteWriter writer;
  writer.u8(7);
  writer.u32(0xDEADBEEF);
  writer.u64(0x0123456789ABCDEF);
  writer.varint(0);
  writer.varint(UINT64_MAX);
  writer.text("page");

  ByteReader reader(writer.view());

  EXPECT_EQ(reader.u8().value(), 7);
  EXPECT_EQ(reader.u32().value(), 0xDEADBEEF);
  EXPECT_EQ(reader.u64().value(), 0x0123456789ABCDEF);
  EXPECT_EQ(reader.varint().value(), 0U);
  EXPECT_EQ(reader.varint().value(), UINT64_MAX);
  EXPECT_EQ(reader.text(4).value(), "page");
  EXPECT_TRUE(reader.at_end());
}

TEST(ByteReaderTest, RefusesEveryTruncation) {
  ByteWriter writer;
  writer.u64(1);
  for (std::size_t size = 0; size < writer.size(); ++size) {
    ByteReader reader(writer.view().first(size));
    EXPECT_EQ(reader.u64().error().code(), Errc::kCorrupt);
  }
}

TEST(ByteReaderTest, RefusesANumberBeyondItsLimit) {
  ByteWriter writer;
  writer.varint(101);
  EXPECT_EQ(ByteReader(writer.view()).varint(100).error().code(), Errc::kCorrupt);
}

TEST(ByteReaderTest, RefusesATextLongerThanItsLimit) {
  ByteWriter writer;
  writer.text("pages");
  EXPECT_EQ(ByteReader(writer.view()).text(4).error().code(), Errc::kCorrupt);
}

TEST(ByteReaderTest, RefusesAVarintOfMoreThan64Bits) {
  const std::vector<std::byte> bytes(10, std::byte{0xFF});
  EXPECT_EQ(ByteReader(bytes).varint().error().code(), Errc::kCorrupt);
}

TEST(ByteReaderTest, RefusesAVarintThatIsLongerThanItNeedBe) {
  const std::vector<std::byte> bytes{std::byte{0xE7}, std::byte{0x00}};
  EXPECT_EQ(ByteReader(bytes).varint().error().code(), Errc::kCorrupt);
}

}  // namespace
}  // namespace samepage
