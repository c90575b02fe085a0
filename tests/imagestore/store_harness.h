#pragma once

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/clock.h"
#include "imagestore/store_client.h"
#include "imagestore/store_node.h"
#include "tests/fakes/fake_origin.h"
#include "tests/imagestore/scratch.h"

namespace samepage::imagestore {

inline Deadline soon(std::chrono::milliseconds time = std::chrono::seconds(20)) {
  return std::chrono::steady_clock::now() + time;
}

inline StoreNode::Options small_node(bool with_ofi = false) {
  StoreNode::Options options;
  options.arena.data_bytes = 16U << 20U;
  options.arena.gap_bytes = 256U << 10U;
  options.arena.region_bytes_max = 4U << 20U;
  if (with_ofi) options.ofi = OfiServer::Options{};
  return options;
}

/// Named store nodes in this process, as an agent would pass requests on to them.
class Nodes final : public StoreService {
 public:
  explicit Nodes(std::string own) : own_(std::move(own)) {}

  StoreNode& add(const std::string& name, const StoreNode::Options& options,
                 const DomainKeys& keys) {
    auto node = StoreNode::create(options, {keys}, clock_);
    if (!node) throw std::runtime_error(node.error().message());
    nodes_[name] = *std::move(node);
    return *nodes_[name];
  }
  void lose(const std::string& name) { nodes_.erase(name); }
  StoreNode& at(const std::string& name) { return *nodes_.at(name); }

  Result<StoreAnswer> serve(const StoreCaller& caller, const bus::StoreRequest& request) override {
    const auto found = nodes_.find(request.node().empty() ? own_ : request.node());
    if (found == nodes_.end()) return fail(Errc::kUnavailable, "that node is away");
    return found->second->serve(caller, request);
  }
  void forget(const StoreCaller& caller) override {
    for (const auto& [name, node] : nodes_) node->forget(caller);
  }

 private:
  const SystemClock clock_;
  const std::string own_;
  std::map<std::string, std::unique_ptr<StoreNode>> nodes_;
};

/// Extents in an origin, with their true pages.
class Extents {
 public:
  Extents(std::size_t count, std::uint64_t seed, std::size_t pages = 8,
          const DomainKeys& named_by = DomainKeys(DigestKey{}))
      : keys(named_by) {
    for (std::size_t i = 0; i < count; ++i) {
      Extent extent;
      extent.pages = random_bytes(pages * kPageSize, seed + i);
      extent.digests.resize(pages);
      digest_pages(extent.pages, keys.pages, extent.digests);
      const EncodedExtent encoded = encode_extent(extent, keys);
      EXPECT_TRUE(origin.put(encoded.name, encoded.bytes));
      names.push_back(encoded.name);
      truth.push_back(std::move(extent.pages));
    }
  }

  const DomainKeys keys;
  fakes::FakeOrigin origin;
  std::vector<ObjectName> names;
  std::vector<std::vector<std::byte>> truth;
};

/// What became of fetching every extent once.
struct Fetched {
  std::size_t right = 0;
  std::size_t wrong = 0;
  std::size_t failed = 0;
  std::vector<Errc> errors;
};

/// Fetches extents [first, last), many at once.
inline Fetched fetch_all(ExtentSource& source, const Extents& extents, std::size_t first,
                         std::size_t last) {
  Fetched fetched;
  std::vector<std::unique_ptr<ExtentBuffer>> buffers;
  std::vector<std::size_t> free_buffers;
  const std::size_t depth = std::min<std::size_t>(source.fetches_max(), 32);
  for (std::size_t i = 0; i < depth; ++i) {
    buffers.push_back(ExtentBuffer::create());
    free_buffers.push_back(i);
  }
  std::vector<std::size_t> buffer_of(last);
  const Deadline deadline = soon(std::chrono::seconds(60));
  std::size_t next = first;
  std::size_t ended = 0;
  while (ended < last - first && std::chrono::steady_clock::now() < deadline) {
    std::vector<ExtentFetch> fetches;
    for (; next < last && !free_buffers.empty(); ++next) {
      buffer_of[next] = free_buffers.back();
      free_buffers.pop_back();
      fetches.push_back({.tag = next,
                         .name = extents.names[next % extents.names.size()],
                         .into = buffers[buffer_of[next]].get()});
    }
    EXPECT_TRUE(source.start(fetches));
    for (const FetchedExtent& done : source.poll(deadline)) {
      ++ended;
      const auto& buffer = *buffers[buffer_of[done.tag]];
      const auto& truth = extents.truth[done.tag % extents.names.size()];
      if (!done.result) {
        ++fetched.failed;
        fetched.errors.push_back(done.result.error().code());
      } else if (std::ranges::equal(buffer.pages(), truth)) {
        ++fetched.right;
      } else {
        ++fetched.wrong;
      }
      free_buffers.push_back(buffer_of[done.tag]);
    }
  }
  return fetched;
}

}  // namespace samepage::imagestore
