// The promise under test: of a stream that a real QEMU writes, the parser sees every page, and the
// relays deliver it unchanged. QEMU starts a guest that never runs, with pages of ours in its RAM,
// so that what must be seen is known without the parser.

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "migrator/stream_parser.h"
#include "tests/fakes/fake_qemu_stream.h"
#include "tests/migrator/relay_harness.h"

namespace samepage::migrator {
namespace {

constexpr std::uint64_t kOurPagesAt = 16U << 20U;
constexpr std::size_t kOurPages = 3000;
constexpr char kQemu[] = "/usr/bin/qemu-system-x86_64";

/// Every tenth page is zero, every seventh is like the one before.
std::vector<Bytes> our_pages() {
  std::mt19937_64 random(1);
  std::vector<Bytes> pages;
  for (std::size_t i = 0; i < kOurPages; ++i) {
    if (i % 10 == 0) {
      pages.emplace_back(kPageSize);
    } else if (i % 7 == 0) {
      pages.push_back(pages.back());
    } else {
      pages.push_back(fakes::random_bytes(kPageSize, random));
    }
  }
  return pages;
}

/// The folder is new, ours, and removed at the end.
class Folder {
 public:
  Folder() {
    std::string name = std::filesystem::temp_directory_path() / "samepage-XXXXXX";
    if (::mkdtemp(name.data()) != nullptr) path_ = name;
  }
  ~Folder() {
    if (!path_.empty()) std::filesystem::remove_all(path_);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string file(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

Bytes read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

/// What QEMU writes when it migrates a guest with `pages` in its RAM.
Bytes qemu_stream(const std::vector<Bytes>& pages) {
  const Folder folder;
  {
    std::ofstream file(folder.file("pages"), std::ios::binary);
    for (const Bytes& page : pages) {
      file.write(reinterpret_cast<const char*>(page.data()), kPageSize);
    }
  }
  const std::string command = std::string("timeout 60 ") + kQemu +
                              " -M q35,accel=tcg -m 64 -nodefaults -display none -S"
                              " -device loader,force-raw=on,addr=" +
                              std::to_string(kOurPagesAt) + ",file=" + folder.file("pages") +
                              " -monitor stdio >/dev/null 2>" + folder.file("errors");
  std::FILE* monitor = ::popen(command.c_str(), "w");
  if (monitor == nullptr) return {};
  const std::string order = "migrate \"exec:cat > " + folder.file("stream") + "\"\nquit\n";
  std::fputs(order.c_str(), monitor);
  ::pclose(monitor);
  return read_file(folder.file("stream"));
}

/// The guest's RAM as the parser sees it.
struct Ram {
  std::map<std::pair<std::string, std::uint64_t>, Bytes> pages;  ///< Empty: a zero page.
  std::uint64_t bytes = 0;                                       ///< That the stream promises.
  std::size_t others = 0;                                        ///< Bytes that are no page.
  bool devices_seen = false;

  void add_bytes(std::span<const std::byte> token) {
    others += token.size();
    // The head of the list of blocks: the RAM's size, and a flag.
    if (token.size() != 8 || token.back() != std::byte{4}) return;
    for (const std::byte byte : token) bytes = bytes << 8U | std::to_integer<unsigned>(byte);
    bytes &= ~std::uint64_t{4095};
  }

  void add_page(const StreamToken& token) {
    const bool zero = token.kind == StreamToken::Kind::kZeroPage;
    const auto name = token.bytes.first(token.bytes.size() - (zero ? 1 : kPageSize)).subspan(8);
    if (!name.empty()) {
      block_.assign(reinterpret_cast<const char*>(name.data()) + 1, name.size() - 1);
    }
    Bytes& page = pages[{block_, token.header & ~std::uint64_t{4095}}];
    page.clear();
    if (!zero) page.assign(token.page().begin(), token.page().end());
  }

 private:
  std::string block_;
};

Ram parse(std::span<const std::byte> stream) {
  Ram ram;
  StreamParser parser;
  while (const auto token = parser.next(stream)) {
    stream = stream.subspan(token->bytes.size());
    if (token->kind == StreamToken::Kind::kBytes) {
      ram.add_bytes(token->bytes);
    } else {
      ram.add_page(*token);
    }
  }
  ram.devices_seen = parser.opaque();
  return ram;
}

class RealStreamTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::filesystem::exists(kQemu)) return;
    const char* ci = std::getenv("CI");  // NOLINT(concurrency-mt-unsafe): no other thread yet.
    if (ci != nullptr && std::string(ci) == "true") FAIL() << kQemu << " is missing";
    GTEST_SKIP() << kQemu << " is missing";
  }
};

TEST_F(RealStreamTest, EveryPageIsSeen) {
  const auto pages = our_pages();
  const Bytes stream = qemu_stream(pages);
  ASSERT_FALSE(stream.empty());

  const Ram ram = parse(stream);

  EXPECT_GE(ram.bytes, 64U << 20U);
  EXPECT_EQ(ram.pages.size() * kPageSize, ram.bytes);
  for (std::size_t i = 0; i < kOurPages; ++i) {
    const auto page = ram.pages.find({"pc.ram", kOurPagesAt + i * kPageSize});
    ASSERT_NE(page, ram.pages.end()) << i;
    const bool zero = is_zero(std::span(pages[i]).first<kPageSize>());
    ASSERT_TRUE(page->second == (zero ? Bytes() : pages[i])) << i;
  }
  EXPECT_TRUE(ram.devices_seen);
  EXPECT_LT(ram.others, 1U << 20U);
}

TEST_F(RealStreamTest, TheRelaysDeliverIt) {
  const auto pages = std::make_shared<std::vector<Bytes>>(our_pages());
  const Bytes stream = qemu_stream(*pages);
  ASSERT_FALSE(stream.empty());
  const auto cache = make_cache(pages);
  RelayHarness relay(*cache);

  EXPECT_TRUE(relay.migrate(stream) == stream);

  EXPECT_TRUE(relay.source->delivered());
  EXPECT_TRUE(relay.target->delivered());
  EXPECT_LT(relay.source->counters().wire_bytes, stream.size() / 5);
}

}  // namespace
}  // namespace samepage::migrator
