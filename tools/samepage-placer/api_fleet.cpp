#include <map>

#include <nlohmann/json.hpp>

#include "core/version.h"
#include "tools/samepage-placer/api.h"
#include "tools/samepage-placer/api_json.h"
#include "tools/samepage-placer/request_body.h"
#include "tools/samepage-placer/what_if.h"

namespace samepage::control {
namespace {

using http::Request;
using http::Response;
using nlohmann::json;

constexpr std::size_t kHistoryMax = 1'000;

Response answer(const json& value) {
  return {.body = value.dump(), .stream = {}};
}

Result<std::map<std::string, std::string>> keys_by_host(Placer& placer) {
  const auto ledger = TRY(placer.open_ledger());
  std::map<std::string, std::string> keys;
  for (const placer::EnrolledHost& host : TRY(ledger->registry().hosts())) {
    keys.emplace(host.name, host.public_key);
  }
  return keys;
}

Result<Response> list_hosts(Placer& placer) {
  auto keys = TRY(keys_by_host(placer));
  const placer::Fleet fleet = placer.fleet();
  json hosts = json::array();
  for (const placer::Host& host : fleet.hosts) {
    hosts.push_back(to_json(host, fleet, keys[host.name]));
  }
  return answer({{"hosts", std::move(hosts)}});
}

Result<Response> enroll_host(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  const std::string name = TRY(body.text("name"));
  const std::string public_key = TRY(body.text("public_key"));
  const auto keys = TRY(keys_by_host(placer));
  if (const auto known = keys.find(name); known != keys.end() && known->second != public_key) {
    return http::conflict(
        name +
        " is enrolled with another key; if the host was set up anew, `samepage hosts forget " +
        name + "` first");
  }
  TRY(placer.enroll(name, public_key));
  const placer::Fleet fleet = placer.fleet();
  const placer::Host* const host = fleet.find_host(name);
  if (host == nullptr) return fail(Errc::kUnavailable, name + " was forgotten just now");
  return answer(to_json(*host, fleet, public_key));
}

Result<Response> forget_host(Placer& placer, const Request& request) {
  const auto forgotten = placer.forget(request.params.at("NAME"));
  if (!forgotten && forgotten.error().code() == Errc::kInvalid) {
    return http::conflict(forgotten.error().message());
  }
  if (!forgotten) return tl::unexpected(forgotten.error());
  return answer(json::object());
}

Result<Response> list_vms(Placer& placer) {
  const placer::Fleet fleet = placer.fleet();
  json vms = json::array();
  for (const placer::Vm& vm : fleet.vms) vms.push_back(to_json(vm, fleet));
  return answer({{"vms", std::move(vms)}});
}

Result<Response> vm_history(Placer& placer, const Request& request) {
  const placer::Fleet fleet = placer.fleet();
  const placer::Vm* const vm = TRY(fleet.named(request.params.at("NAME")));
  const auto ledger = TRY(placer.open_ledger());
  json points = json::array();
  for (const placer::MemorySample& sample : TRY(ledger->memory().newest(vm->id, kHistoryMax))) {
    points.push_back(to_json(sample));
  }
  return answer({{"vm", vm->name}, {"uuid", vm->id.uuid}, {"points", std::move(points)}});
}

Result<Response> sharing_history(Placer& placer, const Request& request) {
  const auto host = request.query.find("host");
  const auto ledger = TRY(placer.open_ledger());
  const auto points = TRY(ledger->sharing().newest(
      host == request.query.end() ? std::string_view() : host->second, kHistoryMax));
  json list = json::array();
  for (const placer::SharingPoint& point : points) list.push_back(to_json(point));
  return answer({{"points", std::move(list)}});
}

Result<Response> what_if(Placer& placer, const Request& request) {
  const auto moves = request.query.find("moves");
  if (moves == request.query.end()) return fail(Errc::kInvalid, "moves=VM=HOST,... is missing");
  return answer(TRY(what_if_json(placer.fleet(), moves->second)));
}

Result<Response> scan(Placer& placer, const Request& request) {
  const Placer::ScanResult result = placer.ask_hosts(Placer::Freshness::kScanned, request.deadline);
  const auto ledger = TRY(placer.open_ledger());
  const placer::Fleet fleet = placer.fleet();
  for (const placer::Host& host : fleet.hosts) TRY(ledger->sharing().note(fleet, host.name));
  json failed = json::array();
  for (const Placer::ScanFailure& failure : result.failed) {
    failed.push_back({{"host", failure.host}, {"message", failure.message}});
  }
  return answer({{"hosts", result.hosts}, {"failed", std::move(failed)}});
}

}  // namespace

void add_fleet_routes(Placer& placer, std::vector<http::Route>& routes) {
  routes.push_back({"GET", "/api/v1/hosts", [&](const Request&) { return list_hosts(placer); }});
  routes.push_back({"POST", "/api/v1/hosts",
                    [&](const Request& request) { return enroll_host(placer, request); }});
  routes.push_back({"DELETE", "/api/v1/hosts/NAME",
                    [&](const Request& request) { return forget_host(placer, request); }});
  routes.push_back({"GET", "/api/v1/vms", [&](const Request&) { return list_vms(placer); }});
  routes.push_back({"GET", "/api/v1/vms/NAME/history",
                    [&](const Request& request) { return vm_history(placer, request); }});
  routes.push_back({"GET", "/api/v1/sharing", [&](const Request&) -> Result<Response> {
                      return answer(sharing_json(placer.fleet()));
                    }});
  routes.push_back({"GET", "/api/v1/sharing/history",
                    [&](const Request& request) { return sharing_history(placer, request); }});
  routes.push_back(
      {"GET", "/api/v1/what-if", [&](const Request& request) { return what_if(placer, request); }});
  routes.push_back(
      {"POST", "/api/v1/scan", [&](const Request& request) { return scan(placer, request); }});
  routes.push_back({"GET", "/api/v1/version", [](const Request&) -> Result<Response> {
                      return answer({{"version", kVersion}});
                    }});
}

}  // namespace samepage::control
