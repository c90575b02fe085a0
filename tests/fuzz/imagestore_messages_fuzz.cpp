// The promise under test: whatever comes over a store's socket or the bus, parsing gives a request
// or reply, or kCorrupt; a store node answers any request or refuses it, and goes on; and a ring
// that is taken is one in which every name has homes.

#include <memory>

#include "core/check.h"
#include "core/clock.h"
#include "core/log.h"
#include "imagestore/ring.h"
#include "imagestore/store_messages.h"
#include "imagestore/store_node.h"
#include "tests/fuzz/fuzz_target.h"

namespace samepage::imagestore {
namespace {

const SystemClock kClock;

StoreNode& node() {
  static const auto made = [] {
    CHECK(set_up_log("error").has_value());
    StoreNode::Options options;
    options.arena.data_bytes = 8U << 20U;
    options.arena.gap_bytes = 256U << 10U;
    options.arena.region_bytes_max = 2U << 20U;
    return std::move(StoreNode::create(options, {DomainKeys(DigestKey{})}, kClock)).value();
  }();
  return *made;
}

bus::StoreRequest lease_request() {
  bus::StoreRequest request;
  request.mutable_open_lease()->set_fabric("shm");
  return request;
}

void decode(std::span<const std::byte> bytes) {
  if (const auto request = parse_store_request(bytes)) {
    static_cast<void>(node().serve({.name = "fuzz"}, *request));
    node().revoke("fuzz");
    CHECK(node().serve({.name = "fuzz"}, lease_request()).has_value());
    node().revoke("fuzz");
    CHECK(node().report().leases() == 0);
  }
  const auto reply = parse_store_reply(bytes);
  if (!reply || !reply->has_ring()) return;
  const auto ring = Ring::from_message(reply->ring());
  if (!ring || ring->members().empty()) return;
  const auto homes = ring->homes(ObjectName{}, 3);
  CHECK(!homes.empty());
  for (const std::size_t home : homes) CHECK(home < ring->members().size());
}

template <class Message>
samepage::fuzz::Input serialized(const Message& message) {
  const std::string bytes = message.SerializeAsString();
  return samepage::fuzz::to_input(std::as_bytes(std::span(bytes)));
}

}  // namespace
}  // namespace samepage::imagestore

std::vector<samepage::fuzz::Input> fuzz_seeds() {
  using namespace samepage::imagestore;  // NOLINT(google-build-using-namespace)
  using samepage::bus::StoreReply;
  using samepage::bus::StoreRequest;
  StoreRequest window;
  window.mutable_open_window()->set_lease(1);
  window.mutable_open_window()->add_extents()->set_name(std::string(32, 'n'));
  window.mutable_open_window()->mutable_extents(0)->set_bytes(4'000);
  StoreRequest publish;
  publish.mutable_publish()->set_lease(1);
  publish.mutable_publish()->set_window(2);
  *publish.mutable_publish()->add_extents() = window.open_window().extents(0);
  StoreRequest recheck;
  recheck.mutable_recheck()->set_lease(1);
  recheck.mutable_recheck()->add_names(std::string(32, 'n'));
  StoreReply ring;
  *ring.mutable_ring() = Ring()
                             .joined({.node = "a", .weight = 1, .host = "a", .rack = "r"})
                             .value()
                             .joined({.node = "b", .weight = 2, .host = "b", .rack = "s"})
                             .value()
                             .to_message();
  return {serialized(lease_request()), serialized(window), serialized(publish), serialized(recheck),
          serialized(ring)};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  samepage::imagestore::decode(samepage::fuzz::as_input(data, size));
  return 0;
}
