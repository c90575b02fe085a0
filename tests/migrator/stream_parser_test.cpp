// The promises under test: the tokens' bytes are the input, whatever the input is and however it
// is cut; every page of a QEMU stream is seen; what is not understood makes the rest bytes.

#include "migrator/stream_parser.h"

#include <array>
#include <functional>
#include <random>
#include <utility>

#include <gtest/gtest.h>

#include "tests/fakes/fake_qemu_stream.h"

namespace samepage::migrator {
namespace {

using fakes::FakeQemuStream;
using Bytes = std::vector<std::byte>;
using Kind = StreamToken::Kind;

struct Seen {
  Bytes bytes;  ///< All tokens' bytes.
  std::vector<Bytes> pages;
  std::vector<std::uint64_t> headers;
  std::size_t zero_pages = 0;

  void add(const StreamToken& token) {
    bytes.insert(bytes.end(), token.bytes.begin(), token.bytes.end());
    if (token.kind == Kind::kBytes) return;
    headers.push_back(token.header);
    if (token.kind == Kind::kZeroPage) ++zero_pages;
    if (token.kind == Kind::kPage) pages.emplace_back(token.page().begin(), token.page().end());
  }
};

/// Offers `stream` with up to `cut()` new bytes at a time, as a relay's buffer does.
Seen parse(StreamParser& parser, std::span<const std::byte> stream,
           const std::function<std::size_t()>& cut, bool drains = false) {
  Seen seen;
  std::size_t taken = 0;
  std::size_t offered = 0;
  while (offered < stream.size()) {
    offered = std::min(stream.size(), offered + cut());
    const auto rest = [&] { return stream.first(offered).subspan(taken); };
    while (const auto token = parser.next(rest())) {
      EXPECT_FALSE(token->bytes.empty());
      taken += token->bytes.size();
      seen.add(*token);
    }
    if ((drains || offered == stream.size()) && !rest().empty()) {
      seen.add(parser.drain(rest()));
      taken = offered;
    }
  }
  return seen;
}

Seen parse_whole(std::span<const std::byte> stream) {
  StreamParser parser;
  return parse(parser, stream, [&] { return stream.size(); });
}

/// Up to where the RAM records begin.
FakeQemuStream start_of_guest(std::uint64_t ram_bytes = 16 * kPageSize) {
  FakeQemuStream stream;
  stream.file_header().configuration("pc-q35-7.2").section_start("ram", 4);
  stream.ram_sizes(ram_bytes).ram_block("pc.ram", ram_bytes).end_of_section().footer();
  stream.section_part();
  return stream;
}

constexpr std::array<std::byte, kPageSize> kContent{std::byte{1}};

TEST(StreamParserTest, SeesEveryPage) {
  std::mt19937_64 random(1);
  std::vector<Bytes> sent;
  const Bytes stream = fakes::fake_guest_stream(200, random, &sent);

  const Seen seen = parse_whole(stream);

  EXPECT_EQ(seen.bytes, stream);
  EXPECT_EQ(seen.pages, sent);
  EXPECT_EQ(seen.zero_pages, 200 - sent.size());
  for (std::size_t i = 0; i < seen.headers.size(); ++i) {
    EXPECT_EQ(seen.headers[i] / kPageSize, i);
  }
}

TEST(StreamParserTest, SeesEveryPageForAnyCut) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    std::vector<Bytes> sent;
    const Bytes stream = fakes::fake_guest_stream(40, random, &sent);
    StreamParser parser;
    const std::size_t cut_max = std::size_t{1} << (seed % 14);

    const Seen seen = parse(parser, stream, [&] { return 1 + random() % cut_max; });

    EXPECT_EQ(seen.bytes, stream);
    EXPECT_EQ(seen.pages, sent);
  }
}

TEST(StreamParserTest, GoesOnBehindADrainedRecord) {
  std::mt19937_64 random(2);
  std::vector<Bytes> sent;
  const Bytes stream = fakes::fake_guest_stream(3, random, &sent);
  ASSERT_GE(sent.size(), 2U);
  for (std::size_t at = 1; at < stream.size(); ++at) {
    StreamParser parser;
    std::size_t part = 0;

    const Seen seen = parse(
        parser, stream, [&] { return part++ == 0 ? at : stream.size(); }, true);

    ASSERT_EQ(seen.bytes, stream) << at;
    ASSERT_GE(seen.pages.size() + 1, sent.size()) << at;
  }
}

TEST(StreamParserTest, PartitionsTheStreamWhenDrainedAnywhere) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    const Bytes stream = fakes::fake_guest_stream(20, random, nullptr);
    StreamParser parser;

    const Seen seen = parse(
        parser, stream, [&] { return 1 + random() % 3000; }, true);

    EXPECT_EQ(seen.bytes, stream);
  }
}

TEST(StreamParserTest, PassesOverWhatIsNotRam) {
  FakeQemuStream stream;
  stream.file_header().configuration("pc-q35-10.0");
  stream.u8(0x05).name("configuration/uuid").be32(1).text("0123456789abcdef");
  const std::array<std::byte, 16> advice{};
  stream.command(1, {}).command(3, advice).section_start("ram", 4);
  stream.ram_sizes(3 * kPageSize).ram_block("pc.ram", 2 * kPageSize);
  stream.ram_block("/rom@etc/acpi/tables", kPageSize).be64(FakeQemuStream::kMultifdFlush);
  stream.end_of_section().footer();
  std::array<std::byte, 4> packaged{std::byte{0}, std::byte{0}, std::byte{0}, std::byte{5}};
  stream.command(7, packaged).text("blob!").command(11, {});
  stream.section_part().first_page(std::string(255, 'r'), 0, kContent).end_of_section().footer();

  StreamParser parser;
  const Seen seen = parse(parser, stream.view(), [] { return 7; });

  EXPECT_EQ(seen.pages.size(), 1U);
  EXPECT_FALSE(parser.opaque());
}

TEST(StreamParserTest, MakesTheRestBytesWhenItDoesNotUnderstand) {
  const auto guest = [] { return start_of_guest(); };
  std::vector<std::pair<std::string, FakeQemuStream>> streams{
      {"another magic", FakeQemuStream().be32(0x5145564E).be32(3)},
      {"another version", FakeQemuStream().be32(0x5145564D).be32(2)},
      {"an unknown section", FakeQemuStream().file_header().u8(0x09)},
      {"a device before RAM", FakeQemuStream().file_header().devices(kContent)},
      {"another iterable device", FakeQemuStream().file_header().section_start("block", 1)},
      {"another version of RAM", FakeQemuStream().file_header().section_start("ram", 5)},
      {"a second RAM", guest().end_of_section().section_start("ram", 4)},
      {"another section's part", guest().end_of_section().u8(0x02).be32(77)},
      {"another section's footer", guest().end_of_section().u8(0x7E).be32(77)},
      {"a part before the start", FakeQemuStream().file_header().section_part()},
      {"a long machine name", FakeQemuStream().file_header().u8(0x07).be32(256)},
      {"capabilities", FakeQemuStream()
                           .file_header()
                           .configuration("pc")
                           .u8(0x05)
                           .name("configuration/capabilities")
                           .be32(1)},
      {"an xbzrle record", guest().be64(FakeQemuStream::kXbzrle | FakeQemuStream::kContinues)},
      {"no flag", guest().be64(0)},
      {"two flags", guest().be64(FakeQemuStream::kPage | FakeQemuStream::kZero)},
      {"a page filled with ones",
       guest().be64(FakeQemuStream::kZero | FakeQemuStream::kContinues).u8(1)},
      {"a second list of blocks", guest().ram_sizes(kPageSize)},
      {"a packaged stream without a size", guest().end_of_section().command(7, {})},
  };
  const auto list = [] { return FakeQemuStream().file_header().section_start("ram", 4); };
  streams.emplace_back("too long a block", list().ram_sizes(4096).ram_block("pc.ram", 8192));
  streams.emplace_back("half a page", list().ram_sizes(4096).ram_block("pc.ram", 2048));
  streams.emplace_back("no name", list().ram_sizes(4096).ram_block("", 4096));
  streams.emplace_back("an unprintable name", list().ram_sizes(4096).ram_block("pc\nram", 4096));
  streams.emplace_back("page sizes in the list",
                       list().ram_sizes(4096).ram_block("pc.ram", 4096).be64(2U << 20U));
  for (auto& [name, stream] : streams) {
    SCOPED_TRACE(name);
    // A page that may not be seen any more.
    stream.page(0, kContent);
    StreamParser parser;

    const Seen seen = parse(parser, stream.view(), [] { return 5; });

    EXPECT_EQ(seen.bytes, Bytes(stream.view().begin(), stream.view().end()));
    EXPECT_TRUE(seen.pages.empty());
    EXPECT_TRUE(parser.opaque());
  }
}

TEST(StreamParserTest, BoundsTheListOfBlocks) {
  FakeQemuStream stream;
  stream.file_header().section_start("ram", 4).ram_sizes(std::uint64_t{1} << 60U);
  for (int i = 0; i < 5000; ++i) stream.ram_block("b", 0);

  StreamParser parser;
  const Seen seen = parse(parser, stream.view(), [&] { return stream.size(); });

  EXPECT_EQ(seen.bytes.size(), stream.size());
  EXPECT_TRUE(parser.opaque());
}

TEST(StreamParserTest, PartitionsDamagedStreams) {
  for (unsigned seed = 0; seed < 2000; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    Bytes stream = fakes::fake_guest_stream(3, random, nullptr);
    // Most damage goes where the grammar is.
    for (unsigned i = 0; i <= seed % 4; ++i) {
      const std::size_t range = random() % 2 == 0 ? 120 : stream.size();
      stream[random() % range] = static_cast<std::byte>(random());
    }
    StreamParser parser;

    const Seen seen = parse(
        parser, stream, [&] { return 1 + random() % 2000; }, seed % 2 == 0);

    ASSERT_EQ(seen.bytes, stream);
  }
}

TEST(StreamParserTest, WaitsForNoMoreThanOneRecord) {
  // A stream that promises the longest record and never completes it.
  FakeQemuStream stream = start_of_guest();
  const std::size_t before = stream.size();
  stream.be64(FakeQemuStream::kPage).name(std::string(255, 'r')).raw(kContent);
  StreamParser parser;
  std::size_t taken = 0;
  while (taken < before) taken += parser.next(stream.view().subspan(taken))->bytes.size();

  const auto record = stream.view().subspan(taken);
  ASSERT_EQ(record.size(), StreamParser::kRecordBytesMax);
  EXPECT_FALSE(parser.next(record.first(record.size() - 1)));
  EXPECT_TRUE(parser.next(record));
}

TEST(StreamParserTest, EveryPageOfMultifdIsSeen) {
  std::mt19937_64 random(8);
  std::vector<Bytes> pages;
  const Bytes stream = fakes::fake_multifd_stream(128, random, &pages);

  const Seen whole = parse_whole(stream);
  EXPECT_EQ(whole.pages, pages);
  EXPECT_EQ(whole.headers[127], 127 * kPageSize);
  EXPECT_EQ(whole.headers[128], 0U);
  StreamParser parser;
  const Seen cut = parse(parser, stream, [&] { return 1 + random() % 3'000; });
  EXPECT_EQ(cut.pages, pages);
  EXPECT_EQ(cut.bytes, stream);
  StreamParser drained;
  const Seen part = parse(
      drained, stream, [&] { return 1 + random() % 3'000; }, true);
  EXPECT_EQ(part.bytes, stream);
  EXPECT_FALSE(drained.opaque());
}

TEST(StreamParserTest, MultifdSaysByNameWhichPagesAreTheGuestsMemory) {
  std::mt19937_64 random(8);
  for (const auto& [block, is_main] :
       {std::pair{"pc.ram", true}, {"ram-node0", true}, {"vga.vram", false}, {"pc.ram2", false}}) {
    const Bytes stream = fakes::fake_multifd_stream(5, random, nullptr, 0, 128, block);
    StreamParser parser;
    auto rest = std::span<const std::byte>(stream);
    while (const auto token = parser.next(rest)) {
      rest = rest.subspan(token->bytes.size());
      if (token->kind != Kind::kPage) continue;
      EXPECT_EQ(token->in_main_block, is_main) << block;
    }
  }
}

TEST(StreamParserTest, MultifdThatIsNotUnderstoodIsBytes) {
  std::mt19937_64 random(8);
  for (const Bytes& stream : {fakes::fake_multifd_stream(1, random, nullptr, 2U << 1U),
                              fakes::fake_multifd_stream(1, random, nullptr, 0, 257)}) {
    const Seen seen = parse_whole(stream);
    EXPECT_TRUE(seen.pages.empty());
    EXPECT_EQ(seen.bytes, stream);
  }
}

}  // namespace
}  // namespace samepage::migrator
