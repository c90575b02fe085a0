#include <chrono>

#include <nlohmann/json.hpp>

#include "tools/samepage-placer/api.h"
#include "tools/samepage-placer/request_body.h"

namespace samepage::control {
namespace {

using http::Request;
using http::Response;
using nlohmann::json;

constexpr auto kLookMax = std::chrono::seconds(10);
constexpr double kCountMax = 1'000;

Response answer(const json& value) {
  return {.body = value.dump(-1, ' ', false, json::error_handler_t::replace), .stream = {}};
}

/// What is decided about who runs where is decided on what hosts say now.
void ask_hosts(Placer& placer, const Request& request) {
  placer.ask_hosts(Placer::Freshness::kStates,
                   std::min(request.deadline, Deadline::clock::now() + kLookMax));
}

json to_json(const Standbys::Sleeper& sleeper) {
  return {{"name", sleeper.name}, {"host", sleeper.host}, {"state", sleeper.state}};
}

Result<Response> list(Placer& placer, const Request& /*request*/) {
  json all = json::array();
  for (const Standbys::Status& one : TRY(placer.standbys().list())) {
    json sleepers = json::array();
    for (const auto& sleeper : one.sleepers) sleepers.push_back(to_json(sleeper));
    all.push_back({{"vm", one.vm},
                   {"now", one.now},
                   {"host", one.host},
                   {"state", one.state},
                   {"standbys", std::move(sleepers)}});
  }
  return answer({{"vms", std::move(all)}});
}

Result<Response> create(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  TRY(body.only({"vm", "template", "count", "on"}));
  Standbys::Order order;
  order.vm = TRY(body.text("vm"));
  order.source = TRY(body.text("template"));
  order.count =
      static_cast<std::size_t>(std::min(TRY(body.quantity("count")).value_or(1), kCountMax));
  if (body.has("on")) order.on = TRY(body.texts("on"));
  ask_hosts(placer, request);
  const auto record = TRY(placer.standbys().add(order, request.deadline));
  return storm_answer(record);
}

Result<Response> wake(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  TRY(body.only({"force"}));
  const bool force = TRY(body.flag("force", false));
  ask_hosts(placer, request);
  const auto woken = placer.standbys().wake(request.params.at("VM"), force, request.deadline);
  if (!woken && woken.error().code() == Errc::kUnavailable) {
    return http::conflict(woken.error().message());
  }
  if (!woken) return tl::unexpected(woken.error());
  return answer(to_json(*woken));
}

Result<Response> remove(Placer& placer, const Request& request) {
  TRY(placer.standbys().remove(request.params.at("VM"), request.deadline));
  return answer(json::object());
}

}  // namespace

void add_standby_routes(Placer& placer, std::vector<http::Route>& routes) {
  const auto add = [&](const char* method, const char* pattern, auto handler) {
    routes.push_back({method, pattern, [&placer, handler](const Request& request) {
                        return handler(placer, request);
                      }});
  };
  add("GET", "/api/v1/standbys", list);
  add("POST", "/api/v1/standbys", create);
  add("POST", "/api/v1/standbys/VM/wake", wake);
  add("DELETE", "/api/v1/standbys/VM", remove);
}

}  // namespace samepage::control
