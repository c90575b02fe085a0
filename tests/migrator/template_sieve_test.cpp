// The promise under test: QEMU's memory is the same with the sieve as without it, and what equals
// the template and was never anything else stays the template's.
#include "migrator/template_sieve.h"

#include <algorithm>
#include <random>

#include <gtest/gtest.h>

#include "tests/fakes/fake_guest_memory.h"
#include "tests/fakes/fake_qemu_stream.h"
#include "tests/migrator/played_memory.h"

namespace samepage::migrator {
namespace {

using fakes::FakeGuestMemory;
using fakes::FakeQemuStream;
using Bytes = std::vector<std::byte>;

constexpr std::size_t kPages = 64;

/// A template whose every fourth page is a hole, and the streams of guests that stand on it.
class TemplateSieveTest : public testing::Test {
 protected:
  TemplateSieveTest() {
    for (std::uint64_t page = 0; page < kPages; ++page) {
      if (page % 4 != 0) ram_->put(page, page + 1);
    }
  }

  static Bytes content(std::uint64_t of) {
    const auto page = FakeGuestMemory::page_of(of);
    return {page.begin(), page.end()};
  }
  static std::uint64_t of_template(std::uint64_t page) { return page % 4 != 0 ? page + 1 : 0; }

  void begin(std::string_view block = "pc.ram", std::size_t pages = kPages) {
    stream_.file_header().configuration("pc-q35-7.2").section_start("ram", 4);
    stream_.ram_sizes((pages + 2) * kPageSize).ram_block(block, pages * kPageSize);
    stream_.ram_block("vga.ram", 2 * kPageSize).end_of_section().footer().section_part();
    stream_.first_zero("vga.ram", 0).first_zero(block, 0);
  }
  void send(std::uint64_t page, std::uint64_t of) {
    const Bytes bytes = content(of);
    if (of == 0) {
      stream_.zero(page * kPageSize);
    } else {
      stream_.page(page * kPageSize, std::span(bytes).first<kPageSize>());
    }
  }
  void finish() {
    std::mt19937_64 random(1);
    stream_.end_of_section().footer().section_end().end_of_section().footer();
    stream_.devices(fakes::random_bytes(3000, random));
  }

  TemplateSieve::Template mapped() const {
    return {.ram = ram_, .block = "pc.ram", .written = std::vector<bool>(kPages)};
  }

  std::vector<Bytes> pages_of_template() const {
    std::vector<Bytes> pages;
    for (std::uint64_t page = 0; page < kPages; ++page) pages.push_back(content(of_template(page)));
    return pages;
  }

  /// What QEMU gets of the stream, given to the sieve in pieces of up to `piece_max`.
  Bytes sieved(TemplateSieve& sieve, std::size_t piece_max = SIZE_MAX) {
    std::mt19937_64 random(piece_max);
    Bytes got;
    const auto write = [&](std::span<const std::byte> bytes) -> Result<void> {
      got.insert(got.end(), bytes.begin(), bytes.end());
      return {};
    };
    for (auto rest = stream_.view(); !rest.empty();) {
      const std::size_t size = std::min<std::size_t>(rest.size(), 1 + random() % piece_max);
      EXPECT_TRUE(sieve.pass(rest.first(size), write));
      rest = rest.subspan(size);
    }
    EXPECT_TRUE(sieve.finish(write));
    return got;
  }

  /// Compares QEMU's memory with and without the sieve; returns it, sieved.
  PlayedMemory expect_same_memory(TemplateSieve& sieve, std::size_t piece_max = SIZE_MAX) {
    PlayedMemory whole(pages_of_template());
    whole.read(stream_.view());
    PlayedMemory some(pages_of_template());
    some.read(sieved(sieve, piece_max));
    EXPECT_TRUE(some.pages == whole.pages);
    return some;
  }

  const std::shared_ptr<FakeGuestMemory> ram_ = std::make_shared<FakeGuestMemory>(kPages);
  FakeQemuStream stream_;
};

TEST_F(TemplateSieveTest, AFreshForkStaysTheTemplates) {
  begin();
  for (std::uint64_t page = 1; page < kPages; ++page) send(page, of_template(page));
  finish();
  TemplateSieve sieve(mapped());

  const PlayedMemory memory = expect_same_memory(sieve);

  EXPECT_EQ(std::ranges::count(memory.own, true), 0);
  EXPECT_EQ(sieve.pages_kept(), kPages - 1) << "all but the one that names the block";
}

TEST_F(TemplateSieveTest, MemoryIsTheSameWhateverTheGuestDoes) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    stream_ = {};
    begin();
    std::vector<bool> changed(kPages);
    for (std::uint64_t page = 1; page < kPages; ++page) send(page, of_template(page));
    for (int i = 0; i < 200; ++i) {
      const std::uint64_t page = random() % kPages;
      const std::uint64_t of = random() % 3 == 0 ? random() % 2 : of_template(page);
      changed[page] = changed[page] || of != of_template(page);
      send(page, of);
    }
    finish();
    TemplateSieve sieve(mapped());

    const PlayedMemory memory = expect_same_memory(sieve, std::size_t{16} << (seed % 12));

    for (std::uint64_t page = 1; page < kPages; ++page) {
      EXPECT_TRUE(changed[page] || !memory.own[page]) << page;
    }
  }
}

TEST_F(TemplateSieveTest, APageThatWasWrittenIsWrittenBack) {
  begin();
  send(5, 77);
  send(5, of_template(5));
  finish();
  TemplateSieve sieve(mapped());

  const PlayedMemory memory = expect_same_memory(sieve);

  EXPECT_TRUE(memory.own[5]);
  EXPECT_EQ(sieve.pages_kept(), 0U);
}

TEST_F(TemplateSieveTest, PagesThatQemuHadOfItsOwnAreWritten) {
  begin();
  send(5, of_template(5));
  finish();
  auto mapping = mapped();
  mapping.written[5] = true;
  TemplateSieve sieve(std::move(mapping));

  EXPECT_EQ(sieved(sieve).size(), stream_.size());
}

TEST_F(TemplateSieveTest, AZeroPageReplacesTheTemplates) {
  begin();
  send(5, 0);
  send(8, 0);
  finish();
  TemplateSieve sieve(mapped());

  const PlayedMemory memory = expect_same_memory(sieve);

  EXPECT_TRUE(memory.own[5]);
  EXPECT_FALSE(memory.own[8]);
}

TEST_F(TemplateSieveTest, OtherBlocksAndOtherSizesPass) {
  for (const std::size_t pages : {kPages, kPages + 1}) {
    stream_ = {};
    begin(pages == kPages ? "ram-node0" : "pc.ram", pages);
    for (std::uint64_t page = 1; page < kPages; ++page) send(page, of_template(page));
    finish();
    TemplateSieve sieve(mapped());

    EXPECT_EQ(sieved(sieve).size(), stream_.size());
  }
}

TEST_F(TemplateSieveTest, BehindWhatIsNotUnderstoodEverythingPasses) {
  begin();
  send(1, of_template(1));
  const std::size_t dropped = 8 + kPageSize;
  stream_.be64(2 * kPageSize | FakeQemuStream::kXbzrle | FakeQemuStream::kContinues);
  send(3, of_template(3));
  finish();
  TemplateSieve sieve(mapped());

  EXPECT_EQ(sieved(sieve).size(), stream_.size() - dropped);
}

TEST_F(TemplateSieveTest, APageThatCannotBeReadIsWritten) {
  ram_->unreadable.insert(5);
  begin();
  send(5, of_template(5));
  finish();
  TemplateSieve sieve(mapped());

  EXPECT_EQ(sieved(sieve).size(), stream_.size());
}

TEST_F(TemplateSieveTest, PostcopyIsRefusedBeforeQemuHearsOfIt) {
  constexpr std::uint16_t kAdvise = 3;
  stream_.file_header().configuration("pc-q35-7.2");
  const std::size_t before = stream_.size();
  stream_.command(kAdvise, Bytes(16));
  TemplateSieve sieve(mapped());
  Bytes got;

  const auto passed = sieve.pass(stream_.view(), [&](std::span<const std::byte> bytes) {
    got.insert(got.end(), bytes.begin(), bytes.end());
    return Result<void>();
  });

  EXPECT_EQ(passed.error().code(), Errc::kInvalid);
  EXPECT_LE(got.size(), before);
}

}  // namespace
}  // namespace samepage::migrator
