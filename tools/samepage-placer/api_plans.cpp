#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>

#include <nlohmann/json.hpp>

#include "core/page_count.h"
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

constexpr auto kAskMax = std::chrono::seconds(3);

/// For the agent to learn that its migration is to stop.
constexpr auto kStopMax = std::chrono::seconds(10);

Result<PlanId> plan_id(const std::string& text) {
  PlanId id;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id.value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return fail(Errc::kNotFound, "no plan " + text + "; `samepage plan list` lists them");
  }
  return id;
}

/// What contradicts the present state is the client's to resolve: a conflict.
template <class T>
Result<Response> answer_after(const Result<T>& done, Ledger& ledger, PlanId id) {
  if (!done && done.error().code() == Errc::kInvalid) return http::conflict(done.error().message());
  if (!done) return tl::unexpected(done.error());
  return plan_answer(ledger, id);
}

Result<Response> list_plans(Placer& placer) {
  const auto ledger = TRY(placer.open_ledger());
  json plans = json::array();
  for (const PlanId id : TRY(ledger->journal().newest(kPlansListed))) {
    plans.push_back(to_json(TRY(ledger->journal().plan(id))));
  }
  return Response{.body = json{{"plans", std::move(plans)}}.dump(), .stream = {}};
}

std::uint64_t pages_of(double mib) {
  constexpr double kMibMax = 1e9;
  return static_cast<std::uint64_t>(std::min(mib, kMibMax) * kPagesPerMib);
}

Result<std::optional<placer::Weights>> read_weights(const RequestBody& body) {
  const auto values = TRY(body.quantities("weights"));
  if (!values) return std::optional<placer::Weights>();
  placer::Weights weights{.sharing = 0};
  for (const auto& [name, value] : *values) {
    if (name == "sharing") {
      weights.sharing = value;
    } else if (name == "hosts") {
      weights.hosts = value;
    } else if (name == "movement") {
      weights.movement = value;
    } else if (name == "balance") {
      weights.balance = value;
    } else {
      return fail(Errc::kInvalid,
                  "no weight is named " + name + "; there are sharing, hosts, movement, balance");
    }
  }
  return std::optional(weights);
}

Result<placer::PlanOptions> read_options(const RequestBody& body, placer::PlanOptions options) {
  TRY(body.only({"gain_min_mib", "goal", "weights", "search_s", "headroom", "moves_max", "keep"}));
  const std::string goal = TRY(body.text_or("goal", ""));
  if (!goal.empty()) options.goal = TRY(placer::parse_goal(goal));
  options.weights = TRY(read_weights(body));
  const auto gain_min_mib = TRY(body.quantity("gain_min_mib"));
  if (gain_min_mib) options.gain_pages_min = pages_of(*gain_min_mib);
  constexpr double kSearchMax = 60;
  const double search_s = TRY(body.quantity("search_s")).value_or(0);
  if (search_s > kSearchMax) return fail(Errc::kInvalid, "\"search_s\" may be 60 at most");
  options.search = std::chrono::milliseconds(static_cast<std::int64_t>(search_s * 1'000));
  options.headroom = TRY(body.quantity("headroom")).value_or(options.headroom);
  if (options.headroom >= 1) return fail(Errc::kInvalid, "\"headroom\" must be below 1");
  constexpr double kMovesMax = 10'000;
  const auto moves_max = TRY(body.quantity("moves_max"));
  if (moves_max) options.moves_max = static_cast<std::size_t>(std::min(kMovesMax, *moves_max));
  return options;
}

Result<Response> make_plan(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  const bool keep = TRY(body.flag("keep", true));
  const auto ledger = TRY(placer.open_ledger());
  auto standing = TRY(ledger->plan_options());
  const placer::PlanOptions options = TRY(read_options(body, std::move(standing)));
  const placer::Plan plan = TRY(placer::plan(fleet_of_now(placer, request.deadline), options));
  if (!keep) return Response{.body = to_json(plan).dump(), .stream = {}};
  const PlanId id = TRY(ledger->journal().propose(plan));
  return plan_answer(*ledger, id);
}

Result<Response> show_plan(Placer& placer, const Request& request) {
  const PlanId id = TRY(plan_id(request.params.at("ID")));
  const auto ledger = TRY(placer.open_ledger());
  return plan_answer(*ledger, id);
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
  const bool at_once = TRY(body.flag("at_once", false));
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
  mode.postcopy = TRY(body.flag("postcopy", false));
  const auto streams = TRY(body.quantity("parallel"));
  // What is too much is refused with the plan.
  if (streams) mode.streams = static_cast<unsigned>(std::min(*streams, 1'000.0));
  const auto deadline = TRY(body.quantity("deadline_s"));
  if (deadline && *deadline < 1) return fail(Errc::kInvalid, "a deadline is at least a second");
  if (deadline) mode.time_max = std::chrono::seconds(std::llround(std::min(*deadline, 1e6)));
  return mode;
}

Result<Response> migrate(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  const std::vector<std::string> vms = TRY(vms_named(body));
  const std::string target = TRY(body.text("target"));
  const MigrateMode mode = TRY(mode_of(body));
  const auto ledger = TRY(placer.open_ledger());
  const placer::PlanOptions options = TRY(ledger->plan_options());
  const auto plan =
      TRY(placer::plan_gang(fleet_of_now(placer, request.deadline), vms, target, mode, options));
  const PlanId id = TRY(ledger->journal().propose(plan));
  if (TRY(body.flag("dry_run", false))) return plan_answer(*ledger, id);
  return answer_after(placer.begin(id, *ledger), *ledger, id);
}

}  // namespace

placer::Fleet fleet_of_now(Placer& placer, Deadline deadline) {
  placer.ask_hosts(Placer::Freshness::kStates,
                   std::min(deadline, Deadline::clock::now() + kAskMax));
  return placer.fleet();
}

Result<Response> plan_answer(Ledger& ledger, PlanId id) {
  const auto plan = TRY(ledger.journal().plan(id));
  return Response{.body = to_json(plan).dump(), .stream = {}};
}

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
