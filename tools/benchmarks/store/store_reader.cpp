#include "tools/benchmarks/store/store_reader.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/fd.h"
#include "imagestore/manifest.h"

namespace samepage::bench {

using imagestore::ExtentBuffer;
using imagestore::ExtentFetch;
using imagestore::ObjectName;
using SteadyClock = std::chrono::steady_clock;

Result<std::unique_ptr<ExtentMap>> ExtentMap::open(imagestore::ImageStore& store,
                                                   const std::string& image,
                                                   const std::string& file) {
  const Fd disk(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat facts {};
  if (!disk || ::fstat(disk.get(), &facts) != 0) return fail(Errc::kNotFound, file);
  const auto bytes = static_cast<std::size_t>(facts.st_size);
  void* const memory = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, disk.get(), 0);
  if (memory == MAP_FAILED) return fail(Errc::kIo, "map " + file);
  std::unique_ptr<ExtentMap> map(
      new ExtentMap(store.keys(), {static_cast<const std::byte*>(memory), bytes}));
  const auto version = TRY(store.catalog().version(image, 0));
  auto manifest = TRY(imagestore::Manifest::open(store.origin(), store.keys(), version.id));
  std::unordered_map<ObjectName, std::uint32_t> numbers;
  map->by_page_.assign(bytes / kPageSize + 1, kZeros);
  TRY(manifest.walk([](const ObjectName&) { return true; },
                    [&](std::uint64_t page, const imagestore::PageRef& ref) -> Result<void> {
                      const auto next = static_cast<std::uint32_t>(map->names_.size());
                      const auto [known, is_new] = numbers.emplace(ref.place.extent, next);
                      if (is_new) map->names_.push_back(ref.place.extent);
                      map->by_page_.at(page) = known->second;
                      map->by_extent_[ref.place.extent].push_back(
                          {.page = page, .slot = ref.place.slot});
                      return {};
                    }));
  return map;
}

ExtentMap::~ExtentMap() {
  ::munmap(const_cast<std::byte*>(image_.data()), image_.size());
}

std::vector<ObjectName> ExtentMap::extents(std::span<const Chunk> chunks, bool once) const {
  std::vector<ObjectName> names;
  std::vector<bool> seen(names_.size());
  for (const Chunk& chunk : chunks) {
    std::uint32_t last = kZeros;
    for (std::uint64_t at = chunk.offset; at < chunk.offset + chunk.bytes; at += kPageSize) {
      const std::uint32_t extent = by_page_.at(at / kPageSize);
      if (extent == kZeros) continue;  // Which nobody fetches.
      const bool is_new = once ? !seen[extent] : last != extent;
      seen[extent] = true;
      if (is_new) names.push_back(names_[extent]);
      last = extent;
    }
  }
  return names;
}

bool ExtentMap::is_true(const ObjectName& name, const ExtentBuffer& extent,
                        std::size_t turn) const {
  constexpr std::size_t kEvery = 8;
  if (turn % kEvery != 0) return true;
  const auto& placed = by_extent_.at(name);
  const auto& [page, slot] = placed[turn / kEvery % placed.size()];
  const auto truth = image_.subspan(page * kPageSize).first(kPageSize);
  return slot < extent.count() &&
         std::memcmp(extent.page(slot).data(), truth.data(), kPageSize) == 0;
}

StoreReader::StoreReader(const ExtentMap& map, std::unique_ptr<imagestore::StoreControl> control,
                         imagestore::StoreClient::Options options, imagestore::ExtentSource* origin,
                         bool again)
    : map_(map),
      again_(again),
      control_(std::move(control)),
      client_(std::move(options), *control_, origin, clock_) {}

Result<void> StoreReader::wait() {
  return client_.wait_for_nodes(SteadyClock::now() + std::chrono::seconds(60));
}

Result<std::uint64_t> StoreReader::read(std::span<const Chunk> chunks, std::size_t depth,
                                        const Done& done) {
  const auto names = map_.extents(chunks, !again_);
  while (buffers_.size() < depth) buffers_.push_back(ExtentBuffer::create());
  std::vector<std::size_t> idle(depth);
  for (std::size_t i = 0; i < depth; ++i) idle[i] = i;
  struct Flight {
    std::size_t position = 0;
    SteadyClock::time_point start;
  };
  std::vector<Flight> flights(depth);
  std::vector<ExtentFetch> fetches;
  std::uint64_t bytes = 0;
  std::size_t next = 0;
  std::size_t ended = 0;
  const auto deadline = SteadyClock::now() + std::chrono::minutes(5);
  while (ended < names.size()) {
    fetches.clear();
    for (; next < names.size() && !idle.empty(); ++next) {
      const std::size_t slot = idle.back();
      idle.pop_back();
      flights[slot] = {.position = next, .start = SteadyClock::now()};
      fetches.push_back({.tag = slot, .name = names[next], .into = buffers_[slot].get()});
    }
    TRY(client_.start(fetches));
    auto fetched = client_.poll(deadline);
    if (fetched.empty()) return fail(Errc::kTimedOut, "the store takes too long");
    for (auto& one : fetched) {
      TRY(one.result);
      const Flight& flight = flights[one.tag];
      const ExtentBuffer& extent = *buffers_[one.tag];
      if (!map_.is_true(names[flight.position], extent, flight.position)) {
        return fail(Errc::kCorrupt, "an extent is not the image's");
      }
      done(std::chrono::duration<double, std::micro>(SteadyClock::now() - flight.start).count());
      bytes += extent.pages().size();
      ++ended;
      idle.push_back(one.tag);
    }
  }
  return bytes;
}

}  // namespace samepage::bench
