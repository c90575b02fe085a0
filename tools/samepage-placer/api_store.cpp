#include <nlohmann/json.hpp>

#include "tools/samepage-placer/api.h"
#include "tools/samepage-placer/request_body.h"

namespace samepage::control {
namespace {

using http::Request;
using http::Response;
using nlohmann::json;

json null_or(bool known, const json& value) {
  return known ? value : json(nullptr);
}

json node_json(const StoreDirectory::Node& node, const placer::Fleet& fleet) {
  const placer::Host* const host = fleet.find_host(node.name);
  const bus::StoreReport report = node.report.value_or(bus::StoreReport());
  const bool known = node.report.has_value();
  const bool member = node.member.has_value();
  return {{"node", node.name},
          {"state", host == nullptr ? "unknown" : std::string(to_string(host->state))},
          {"member", member},
          {"weight", null_or(member, member ? node.member->weight : 0)},
          {"rack", null_or(member, member ? node.member->rack : "")},
          {"share", static_cast<double>(node.slots) / imagestore::Ring::kSlots},
          {"capacity_bytes", null_or(known, report.capacity_bytes())},
          {"extents", null_or(known, report.extents())},
          {"extent_bytes", null_or(known, report.extent_bytes())},
          {"evicted", null_or(known, report.evicted())},
          {"leases", null_or(known, report.leases())},
          {"refused", null_or(known, report.refused())},
          {"warm_versions", null_or(known, report.warm_versions_size())},
          {"report_age_s", null_or(known, std::chrono::duration<double>(node.report_age).count())}};
}

Response status(Placer& placer) {
  const StoreDirectory::Status status = placer.stores().status();
  const placer::Fleet fleet = placer.fleet();
  json nodes = json::array();
  for (const auto& node : status.nodes) nodes.push_back(node_json(node, fleet));
  const json body = {{"ring_version", status.version},
                     {"hot_extents", status.hot_extents},
                     {"nodes", std::move(nodes)}};
  return {.body = body.dump(), .stream = {}};
}

/// The API says "conflict" where the request contradicts what is.
Result<Response> answer(Placer& placer, const Result<void>& changed) {
  if (changed) return status(placer);
  if (changed.error().code() != Errc::kInvalid) return tl::unexpected(changed.error());
  return http::conflict(changed.error().message());
}

Result<Response> join(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  const std::string node = TRY(body.text("node"));
  const std::string rack = TRY(body.text("rack"));
  const double weight = TRY(body.quantity("weight")).value_or(1);
  return answer(placer,
                placer.join_store({.node = node, .weight = weight, .host = node, .rack = rack}));
}

}  // namespace

void add_store_routes(Placer& placer, std::vector<http::Route>& routes) {
  routes.push_back(
      {"GET", "/api/v1/store", [&](const Request&) -> Result<Response> { return status(placer); }});
  routes.push_back({"POST", "/api/v1/store/nodes",
                    [&](const Request& request) { return join(placer, request); }});
  routes.push_back({"DELETE", "/api/v1/store/nodes/NAME", [&](const Request& request) {
                      return answer(placer, placer.leave_store(request.params.at("NAME")));
                    }});
}

}  // namespace samepage::control
