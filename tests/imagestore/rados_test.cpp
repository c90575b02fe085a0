// The promises of every origin (origin_conformance.h, kill_conformance.h), held to by RadosOrigin
// on a real Ceph, which with_ceph.py starts; and what is its own: an answer, not a hang, when the
// cluster goes away.

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include <unistd.h>

#include "imagestore/disk.h"
#include "imagestore/pack_file.h"
#include "imagestore/rados_origin.h"
#include "imagestore/rados_pool.h"
#include "imagestore/store_listener.h"
#include "imagestore/version_source.h"
#include "tests/imagestore/kill_conformance.h"
#include "tests/imagestore/origin_conformance.h"
#include "tests/imagestore/store_harness.h"

namespace samepage::imagestore {
namespace {

std::string from_environment(const char* name) {
  const char* const value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
  if (value == nullptr)
    throw std::runtime_error(std::string(name) + " is not set: see with_ceph.py");
  return value;
}

class Pool final : public StorePlace {
 public:
  Pool() : name_space_("test-" + std::to_string(next_++)) {}

  Result<std::unique_ptr<Origin>> open_origin(DirOrigin::Access access) override {
    return TRY(RadosOrigin::open(
        {.pool = "chunks", .name_space = name_space_, .conf = conf_, .access = access}));
  }

  void damage(const ObjectName& name, std::size_t at) override {
    auto pool =
        RadosPool::open({.conf = conf_, .pool = "chunks", .name_space = name_space_}).value();
    const auto facts = pool->describe(std::vector{to_hex(name)}, "buried").value();
    auto bytes = pool->read(to_hex(name), 2 * kObjectBytesMax).value();
    bytes[at % bytes.size()] ^= static_cast<std::byte>(1U << (at % 8));
    RadosChange change = pool->change();
    change.write(bytes);
    ASSERT_EQ(pool->start(to_hex(name), std::move(change)).wait(), 0);
  }

  ImageStore::Options store_options() override {
    return {
        .folder = scratch_ / "store", .origin = "rados:chunks/" + name_space_, .ceph_conf = conf_};
  }

 private:
  static inline std::atomic<int> next_ = 1;
  const std::string name_space_;
  const std::string conf_ = from_environment("SAMEPAGE_CEPH_CONF");
  Scratch scratch_;
};

std::unique_ptr<StorePlace> make_pool() {
  return std::make_unique<Pool>();
}

const auto kName = [](const auto& kind) { return kind.param.name; };

INSTANTIATE_TEST_SUITE_P(Rados, OriginConformance,
                         ::testing::Values(StorePlaceKind{"rados", make_pool}), kName);
INSTANTIATE_TEST_SUITE_P(Rados, StoreConformance,
                         ::testing::Values(StorePlaceKind{"rados", make_pool}), kName);
// Few: what is killed while it has the catalog locked keeps it locked for half a minute, and the
// release of Ceph that Debian 12 has takes no other time for it (cephsqlite_lock_renewal_timeout).
INSTANTIATE_TEST_SUITE_P(Rados, KillDeathTest,
                         ::testing::Values(StorePlaceKind{"rados", make_pool, 1}), kName);

bool is_stopped(const std::filesystem::path& thread) {
  std::ifstream file(thread / "stat");
  const std::string stat{std::istreambuf_iterator<char>(file), {}};
  return stat.substr(stat.rfind(')')).starts_with(") T");
}

/// Returns when no thread of the process runs any more, which the signal alone does not promise.
void stop(pid_t pid) {
  ASSERT_EQ(::kill(pid, SIGSTOP), 0);
  const auto tasks = std::filesystem::path("/proc") / std::to_string(pid) / "task";
  for (const auto& thread : std::filesystem::directory_iterator(tasks)) {
    while (!is_stopped(thread)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

TEST(RadosOriginTest, SaysWhatIsWrongWithThePlace) {
  const std::string conf = from_environment("SAMEPAGE_CEPH_CONF");
  EXPECT_EQ(RadosOrigin::open({.pool = "no-such-pool", .conf = conf}).error().code(),
            Errc::kNotFound);
  EXPECT_EQ(RadosOrigin::open({.pool = "chunks", .conf = "/no/such/ceph.conf"}).error().code(),
            Errc::kInvalid);
  for (const char* origin : {"rados:", "rados:chunks/", "ftp:chunks"}) {
    Scratch scratch;
    EXPECT_EQ(ImageStore::open({.folder = scratch / "store", .origin = origin, .ceph_conf = conf})
                  .error()
                  .code(),
              Errc::kInvalid)
        << origin;
  }
}

TEST(RadosOutage, EndsInAnErrorAndGoesOnAfterwards) {
  const auto osd = static_cast<pid_t>(std::stol(from_environment("SAMEPAGE_CEPH_OSD")));
  auto origin = RadosOrigin::open({.pool = "chunks",
                                   .name_space = "outage",
                                   .conf = from_environment("SAMEPAGE_CEPH_CONF"),
                                   .access = DirOrigin::Access::kWrite,
                                   .operation_seconds_max = 2})
                    .value();
  const auto bytes = random_bytes(1000, 1);
  ASSERT_TRUE(origin->put(numbered_name(1), bytes));
  ASSERT_TRUE(origin->sync());
  stop(osd);
  EXPECT_EQ(origin->get(numbered_name(1)).error().code(), Errc::kUnavailable);
  ASSERT_TRUE(origin->put(numbered_name(2), bytes)) << "which is under way";
  EXPECT_EQ(origin->sync().error().code(), Errc::kUnavailable);
  ASSERT_EQ(::kill(osd, SIGCONT), 0);
  // The cluster may have taken the OSD for lost, and takes it back when it gets round to it.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(2);
  auto got = origin->get(numbered_name(1));
  while (!got && std::chrono::steady_clock::now() < deadline) got = origin->get(numbered_name(1));
  ASSERT_TRUE(got) << got.error().message();
  EXPECT_EQ(*got, bytes);
  ASSERT_TRUE(origin->discard());
  ASSERT_TRUE(origin->put(numbered_name(2), bytes));
  ASSERT_TRUE(origin->sync());
  EXPECT_EQ(origin->get(numbered_name(2)).value(), bytes);
}

TEST(RadosOutage, ADiskReadsFromItsNodeAndWaitsForWhatThatLacks) {
  constexpr std::size_t kPages = 600;
  const auto osd = static_cast<pid_t>(std::stol(from_environment("SAMEPAGE_CEPH_OSD")));
  Scratch scratch;
  const auto bytes = disk_bytes(kPages, 4);
  write_file(scratch / "image", bytes);
  ImageStore::Options options{.folder = scratch / "store",
                              .access = DirOrigin::Access::kWrite,
                              .origin = "rados:chunks/away",
                              .ceph_conf = from_environment("SAMEPAGE_CEPH_CONF")};
  const auto store = ImageStore::open(options).value();
  const auto version = import_file(*store, scratch / "image", "base").value().version.id;
  options.access = DirOrigin::Access::kRead;
  const SystemClock clock;
  const auto node = StoreNode::create(small_node(), {store->keys()}, clock).value();
  const auto listener = StoreListener::create({.path = scratch / "sock"}, *node).value();
  const VersionSource::Options source{.store = options, .agent_socket = scratch / "sock"};
  // The node gets what the first leaf's pages need.
  const auto filler = VersionSource::open(source, version).value();
  const auto buffer = ExtentBuffer::create();
  const auto give_up = soon();
  std::uint64_t fetched = 0;
  std::uint64_t fetched_from_node = 0;
  do {
    fetched = 0;
    const std::uint64_t before = filler->counts().own_extents;
    for (std::uint64_t page = 0; page < kFanOut; ++page) {
      const auto ref = filler->manifest().find(page).value();
      if (!ref) continue;
      ASSERT_TRUE(fetch_extent(filler->extents(), ref->place.extent, *buffer, soon()));
      ++fetched;
    }
    fetched_from_node = filler->counts().own_extents - before;
  } while (fetched_from_node < fetched && std::chrono::steady_clock::now() < give_up);
  ASSERT_EQ(fetched_from_node, fetched);
  ASSERT_TRUE(Overlay::create(scratch / "disk", {.base = version, .size_bytes = bytes.size()}));
  Disk::Options serving{
      .folder = scratch / "disk", .mirrors = scratch / "mirrors", .source = source};
  serving.threads = 1;
  serving.traces = false;
  const auto disk = Disk::open(serving).value();
  const auto read = [&](std::uint64_t page) {
    std::vector<std::byte> got(kPageSize);
    EXPECT_TRUE(disk->read(page * kPageSize, got));
    return std::ranges::equal(got, std::span(bytes).subspan(page * kPageSize, kPageSize));
  };
  EXPECT_TRUE(read(kPages - 1)) << "so the manifest's nodes are known";
  std::uint64_t next = 0;
  while (disk->status().fetched.source.own_extents == 0 && next < kFanOut / 2) {
    EXPECT_TRUE(read(next++));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // The lease comes in its own time.
  }
  ASSERT_GT(disk->status().fetched.source.own_extents, 0);

  stop(osd);
  for (; next < kFanOut; ++next) EXPECT_TRUE(read(next)) << next;
  std::atomic<bool> is_read = false;
  std::jthread reader([&] {
    for (std::uint64_t page = 2 * kFanOut; page < kPages; ++page) EXPECT_TRUE(read(page)) << page;
    is_read = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(500));  // Time to fail, if it were to.
  EXPECT_FALSE(is_read);
  ASSERT_EQ(::kill(osd, SIGCONT), 0);
  reader.join();
  EXPECT_TRUE(is_read);
}

}  // namespace
}  // namespace samepage::imagestore
