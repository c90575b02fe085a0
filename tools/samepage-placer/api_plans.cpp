#include <algorithm>
#include <charconv>
#include <chrono>

#include <nlohmann/json.hpp>

#include "placer/gang.h"
#include "placer/planner.h"
#include "tools/samepage-placer/api.h"
#include "tools/samepage-placer/api_json.h"
#include "tools/samepage-placer/request_body.h"

namespace samepage::control {
namespace {

using http::Request;
using http::Response;
using nlohmann::json;
using placer::PlanId;

constexpr std::size_t kPlansListed = 50;
constexpr double kPagesPerMib = 256;

/// A plan is made of what the hosts say now; one that does not answer soon counts as it was.
constexpr auto kAskMax = std::chrono::seconds(3);

/// For the agent to learn that its migration is to stop.
constexpr auto kStopMax = std::chrono::seconds(10);

placer::Fleet fleet_of_now(Placer& placer, Deadline deadline) {
  placer.ask_hosts(Placer::Freshness::kStates,
                   std::min(deadline, Deadline::clock::now() + kAskMax));
  return placer.fleet();
}

Result<PlanId> plan_id(const std::string& text) {
  PlanId id;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id.value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return fail(Errc::kNotFound, "no plan " + text + "; `samepage plan list` lists them");
  }
  return id;
}

Result<Response> answer(Ledger& ledger, PlanId id) {
  const auto plan = TRY(ledger.journal().plan(id));
  return Response{.body = to_json(plan).dump(), .stream = {}};
}

/// What contradicts the present state is the client's to resolve: a conflict.
template <class T>
Result<Response> answer_after(const Result<T>& done, Ledger& ledger, PlanId id) {
  if (!done && done.error().code() == Errc::kInvalid) return http::conflict(done.error().message());
  if (!done) return tl::unexpected(done.error());
  return answer(ledger, id);
}

Result<Response> list_plans(Placer& placer) {
  const auto ledger = TRY(placer.open_ledger());
  json plans = json::array();
  for (const PlanId id : TRY(ledger->journal().newest(kPlansListed))) {
    plans.push_back(to_json(TRY(ledger->journal().plan(id))));
  }
  return Response{.body = json{{"plans", std::move(plans)}}.dump(), .stream = {}};
}

Result<Response> make_plan(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  placer::PlanOptions options;
  const auto gain_min_mib = TRY(body.quantity("gain_min_mib"));
  if (gain_min_mib) {
    constexpr double kMibMax = 1e9;
    options.gain_pages_min =
        static_cast<std::uint64_t>(std::min(*gain_min_mib, kMibMax) * kPagesPerMib);
  }
  const auto ledger = TRY(placer.open_ledger());
  const PlanId id =
      TRY(ledger->journal().propose(placer::plan(fleet_of_now(placer, request.deadline), options)));
  return answer(*ledger, id);
}

Result<Response> show_plan(Placer& placer, const Request& request) {
  const PlanId id = TRY(plan_id(request.params.at("ID")));
  const auto ledger = TRY(placer.open_ledger());
  return answer(*ledger, id);
}

Result<Response> apply_plan(Placer& placer, const Request& request) {
  const PlanId id = TRY(plan_id(request.params.at("ID")));
  const auto ledger = TRY(placer.open_ledger());
  fleet_of_now(placer, request.deadline);
  return answer_after(placer.begin(id, *ledger), *ledger, id);
}

Result<Response> cancel_plan(Placer& placer, const Request& request) {
  const PlanId id = TRY(plan_id(request.params.at("ID")));
  const RequestBody body = TRY(RequestBody::parse(request.body));
  const bool at_once = TRY(body.flag("at_once"));
  const auto ledger = TRY(placer.open_ledger());
  auto asked = ledger->journal().request_cancel(id);
  if (asked && at_once) {
    asked = placer.stop_move(id, *ledger,
                             std::min(request.deadline, Deadline::clock::now() + kStopMax));
  }
  return answer_after(asked, *ledger, id);
}

/// One VM as "vm", or several as "vms".
Result<std::vector<std::string>> vms_named(const RequestBody& body) {
  if (body.has("vms")) return body.texts("vms");
  return std::vector<std::string>{TRY(body.text("vm"))};
}

Result<MigrateMode> mode_of(const RequestBody& body) {
  MigrateMode mode;
  mode.postcopy = TRY(body.flag("postcopy"));
  const auto streams = TRY(body.quantity("parallel"));
  // What is too much is refused with the plan.
  if (streams) mode.streams = static_cast<unsigned>(std::min(*streams, 1'000.0));
  return mode;
}

Result<Response> migrate(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  const std::vector<std::string> vms = TRY(vms_named(body));
  const std::string target = TRY(body.text("target"));
  const MigrateMode mode = TRY(mode_of(body));
  const auto plan =
      TRY(placer::plan_gang(fleet_of_now(placer, request.deadline), vms, target, mode, {}));
  const auto ledger = TRY(placer.open_ledger());
  const PlanId id = TRY(ledger->journal().propose(plan));
  if (TRY(body.flag("dry_run"))) return answer(*ledger, id);
  return answer_after(placer.begin(id, *ledger), *ledger, id);
}

}  // namespace

void add_plan_routes(Placer& placer, std::vector<http::Route>& routes) {
  routes.push_back({"GET", "/api/v1/plans", [&](const Request&) { return list_plans(placer); }});
  routes.push_back({"POST", "/api/v1/plans",
                    [&](const Request& request) { return make_plan(placer, request); }});
  routes.push_back({"GET", "/api/v1/plans/ID",
                    [&](const Request& request) { return show_plan(placer, request); }});
  routes.push_back({"POST", "/api/v1/plans/ID/apply",
                    [&](const Request& request) { return apply_plan(placer, request); }});
  routes.push_back({"POST", "/api/v1/plans/ID/cancel",
                    [&](const Request& request) { return cancel_plan(placer, request); }});
  routes.push_back({"POST", "/api/v1/migrations",
                    [&](const Request& request) { return migrate(placer, request); }});
}

}  // namespace samepage::control
