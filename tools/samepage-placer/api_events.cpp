#include <charconv>
#include <memory>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/log.h"
#include "tools/samepage-placer/api.h"
#include "tools/samepage-placer/api_json.h"

namespace samepage::control {
namespace {

using http::Request;
using http::Response;

constexpr std::size_t kEventsAtOnce = 500;

Result<std::int64_t> number(const http::Fields& query, const char* key) {
  const auto found = query.find(key);
  if (found == query.end()) return 0;
  std::int64_t value = 0;
  const char* const end = found->second.data() + found->second.size();
  const auto read = std::from_chars(found->second.data(), end, value);
  if (read.ec != std::errc() || read.ptr != end || value < 0) {
    return fail(Errc::kInvalid, std::string("\"") + key + "\" must be a number, zero or more");
  }
  return value;
}

/// Reads the event log forward, as far as it goes or for as long as somebody listens.
class EventStream {
 public:
  EventStream(std::unique_ptr<Ledger> ledger, EventBell& bell, std::int64_t since)
      : ledger_(std::move(ledger)), bell_(bell), since_(since) {}

  void follow() { follow_ = true; }
  void only(placer::PlanId plan) { plan_ = plan; }

  std::optional<std::string> next(Deadline deadline) {
    auto more = advance(deadline);
    if (more) return *std::move(more);
    log_error("event stream ended why=\"{}\"", more.error().message());
    return std::nullopt;
  }

 private:
  Result<std::optional<std::string>> advance(Deadline deadline) {
    const bool over = !follow_ || TRY(plan_is_over());
    std::string lines = TRY(read());
    if (!lines.empty()) return std::optional<std::string>(std::move(lines));
    if (over) return std::optional<std::string>();
    heard_ = bell_.wait(heard_, deadline);
    return std::optional<std::string>(TRY(read()));
  }

  Result<std::string> read() {
    std::string lines;
    for (const placer::Event& event : TRY(ledger_->events().since(since_, plan_, kEventsAtOnce))) {
      since_ = event.id;
      lines += to_json(event).dump() + '\n';
    }
    return lines;
  }

  Result<bool> plan_is_over() {
    if (!plan_) return false;
    const auto plan = TRY(ledger_->journal().plan(*plan_));
    return plan.state != placer::PlanState::kRunning && plan.state != placer::PlanState::kProposed;
  }

  const std::unique_ptr<Ledger> ledger_;
  EventBell& bell_;
  std::int64_t since_;
  std::uint64_t heard_ = 0;
  bool follow_ = false;
  std::optional<placer::PlanId> plan_;
};

Result<Response> stream_events(Placer& placer, const Request& request) {
  const auto since = TRY(number(request.query, "since"));
  const auto follow = TRY(number(request.query, "follow"));
  const auto plan = TRY(number(request.query, "plan"));
  auto ledger = TRY(placer.open_ledger());
  if (plan != 0) TRY(ledger->journal().plan({plan}));
  auto stream = std::make_shared<EventStream>(std::move(ledger), placer.bell(), since);
  if (follow != 0) stream->follow();
  if (plan != 0) stream->only({plan});
  return http::ndjson([stream](Deadline deadline) { return stream->next(deadline); });
}

}  // namespace

void add_event_routes(Placer& placer, std::vector<http::Route>& routes) {
  routes.push_back({"GET", "/api/v1/events",
                    [&](const Request& request) { return stream_events(placer, request); }});
  routes.push_back({"GET", "/metrics", [&](const Request&) -> Result<Response> {
                      return Response{.body = TRY(metrics_text(placer)),
                                      .content_type = "text/plain; version=0.0.4",
                                      .stream = {}};
                    }});
}

void add_routes(Placer& placer, std::vector<http::Route>& routes,
                std::initializer_list<ApiRoute> added) {
  for (const ApiRoute& route : added) {
    routes.push_back(
        {route.method, route.pattern, [&placer, handler = route.handler](const Request& request) {
           return handler(placer, request);
         }});
  }
}

std::vector<http::Route> api_routes(Placer& placer) {
  std::vector<http::Route> routes;
  add_fleet_routes(placer, routes);
  add_plan_routes(placer, routes);
  add_policy_routes(placer, routes);
  add_disk_routes(placer, routes);
  add_boot_routes(placer, routes);
  add_standby_routes(placer, routes);
  add_event_routes(placer, routes);
  add_store_routes(placer, routes);
  return routes;
}

}  // namespace samepage::control
