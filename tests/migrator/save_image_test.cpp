#include "migrator/save_image.h"

#include <algorithm>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "migrator/stream_parser.h"
#include "tests/fakes/fake_qemu_stream.h"

namespace samepage::migrator {
namespace {

using fakes::FakeQemuStream;

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

std::vector<std::byte> page_of(std::byte fill) {
  return std::vector<std::byte>(kPageSize, fill);
}

PageView view(const std::vector<std::byte>& page) {
  return std::span(page).first<kPageSize>();
}

/// Two blocks, whose records take turns.
FakeQemuStream two_blocks() {
  const auto one = page_of(std::byte{1});
  const auto two = page_of(std::byte{2});
  FakeQemuStream stream;
  stream.file_header().configuration("pc-i440fx-7.2").section_start("ram", 4);
  stream.ram_sizes(6 * kPageSize)
      .ram_block("pc.ram", 4 * kPageSize)
      .ram_block("pc.bios", 2 * kPageSize);
  stream.end_of_section().footer().section_part();
  stream.first_page("pc.ram", 0, view(one)).zero(kPageSize);
  stream.first_page("pc.bios", 0, view(two)).page(kPageSize, view(two));
  stream.first_zero("pc.ram", 2 * kPageSize).page(3 * kPageSize, view(one));
  stream.end_of_section().footer().section_end().end_of_section().footer();
  stream.devices(bytes_of("the devices"));
  return stream;
}

TEST(SaveImage, comes_back_as_it_was_written) {
  const auto stream = bytes_of("a stream");
  SaveImage image{.xml = "<domain/>", .cookie = "<cookie/>", .was_running = true, .stream = stream};
  const auto file = image.serialize();
  const auto read = SaveImage::parse(file);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->xml, image.xml);
  EXPECT_EQ(read->cookie, image.cookie);
  EXPECT_TRUE(read->was_running);
  EXPECT_TRUE(std::ranges::equal(read->stream, stream));

  image.cookie.clear();
  const auto without = image.serialize();
  EXPECT_TRUE(SaveImage::parse(without)->cookie.empty());
}

TEST(SaveImage, refuses_what_is_cut_off_or_compressed) {
  const auto stream = bytes_of("a stream");
  const SaveImage image{
      .xml = "<domain/>", .cookie = "<cookie/>", .was_running = false, .stream = stream};
  const auto file = image.serialize();
  for (std::size_t size = 0; size < file.size() - stream.size(); ++size) {
    const auto read = SaveImage::parse(std::span(file).first(size));
    ASSERT_FALSE(read) << size;
    EXPECT_EQ(read.error().code(), Errc::kCorrupt);
  }
  auto compressed = file;
  compressed[28] = std::byte{1};
  EXPECT_EQ(SaveImage::parse(compressed).error().code(), Errc::kInvalid);
  auto cookie_outside = file;
  cookie_outside[33] = std::byte{0x7F};
  EXPECT_EQ(SaveImage::parse(cookie_outside).error().code(), Errc::kCorrupt);
}

TEST(WithoutBlock, keeps_other_blocks_and_names_them) {
  const auto stream = two_blocks();
  const auto kept = without_block(stream.view(), "pc.ram");
  ASSERT_TRUE(kept) << kept.error().message();

  const auto two = page_of(std::byte{2});
  FakeQemuStream expected;
  expected.file_header().configuration("pc-i440fx-7.2").section_start("ram", 4);
  expected.ram_sizes(6 * kPageSize)
      .ram_block("pc.ram", 4 * kPageSize)
      .ram_block("pc.bios", 2 * kPageSize);
  expected.end_of_section().footer().section_part();
  expected.first_page("pc.bios", 0, view(two)).first_page("pc.bios", kPageSize, view(two));
  expected.end_of_section().footer().section_end().end_of_section().footer();
  expected.devices(bytes_of("the devices"));
  EXPECT_TRUE(std::ranges::equal(*kept, expected.view()));
}

TEST(WithoutBlock, refuses_a_stream_that_it_cannot_follow) {
  const auto stream = two_blocks();
  for (const std::size_t size : {std::size_t{0}, std::size_t{30}, stream.size() - 60}) {
    EXPECT_EQ(without_block(stream.view().first(size), "pc.ram").error().code(), Errc::kCorrupt);
  }
  EXPECT_EQ(without_block(stream.view(), "pc.rom").error().code(), Errc::kNotFound);
  std::vector<std::byte> strange(stream.view().begin(), stream.view().end());
  // A record of a kind that nobody knows, where the first page was.
  const auto at = std::ranges::search(strange, bytes_of("pc.ram")).begin();
  const auto second = std::search(at + 1, strange.end(), at, at + 6);
  *(second - 2) = std::byte{0x40};
  EXPECT_EQ(without_block(strange, "pc.ram").error().code(), Errc::kCorrupt);
}

}  // namespace
}  // namespace samepage::migrator
