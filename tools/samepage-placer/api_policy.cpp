#include <nlohmann/json.hpp>

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
using placer::Rule;

Response answer(const json& value) {
  return {.body = value.dump(), .stream = {}};
}

json rule_json(const Rule& rule) {
  return {{"name", rule.name},
          {"kind", to_string(rule.kind)},
          {"vms", rule.vms},
          {"hosts", rule.hosts}};
}

json policy_json(const placer::Policy& policy) {
  return {{"mode", to_string(policy.mode)},
          {"goal", to_string(policy.goal)},
          {"every_s", policy.every.count()},
          {"cooldown_s", policy.cooldown.count()}};
}

/// Rules beside which no plan can be made would lame the placer: they are refused at the door.
Result<void> check_together(Placer& placer, std::vector<Rule> rules, const Rule& added) {
  rules.push_back(added);
  placer::PlanOptions options;
  options.goal = placer::Goal::kMovement;
  options.rules = std::move(rules);
  TRY(placer::plan(placer.fleet(), options));
  return {};
}

Result<Response> list_rules(Placer& placer) {
  const auto ledger = TRY(placer.open_ledger());
  json rules = json::array();
  for (const Rule& rule : TRY(ledger->policies().rules())) rules.push_back(rule_json(rule));
  return answer({{"rules", std::move(rules)}});
}

Result<Response> add_rule(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  TRY(body.only({"name", "kind", "vms", "hosts"}));
  Rule rule;
  rule.name = TRY(body.text("name"));
  const std::string kind = TRY(body.text("kind"));
  rule.kind = TRY(placer::parse_rule_kind(kind));
  rule.vms = TRY(body.texts("vms"));
  rule.hosts = TRY(body.texts("hosts"));
  const auto ledger = TRY(placer.open_ledger());
  const std::vector<Rule> others = TRY(ledger->policies().rules());
  if (const auto holds = check_together(placer, others, rule); !holds) {
    return http::conflict(holds.error().message());
  }
  TRY(ledger->policies().add(rule));
  placer.policy_changed();
  return answer(rule_json(rule));
}

Result<Response> remove_rule(Placer& placer, const Request& request) {
  const auto ledger = TRY(placer.open_ledger());
  TRY(ledger->policies().remove(request.params.at("NAME")));
  placer.policy_changed();
  return answer(json::object());
}

Result<Response> show_policy(Placer& placer) {
  const auto ledger = TRY(placer.open_ledger());
  const placer::Policy policy = TRY(ledger->policies().policy());
  return answer(policy_json(policy));
}

Result<Response> change_policy(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  TRY(body.only({"mode", "goal", "every_s", "cooldown_s"}));
  const auto ledger = TRY(placer.open_ledger());
  placer::Policy policy = TRY(ledger->policies().policy());
  const std::string mode = TRY(body.text_or("mode", ""));
  const std::string goal = TRY(body.text_or("goal", ""));
  if (!mode.empty()) policy.mode = TRY(placer::parse_mode(mode));
  if (!goal.empty()) policy.goal = TRY(placer::parse_goal(goal));
  constexpr double kMax = 1e6;
  const auto number = [&](const char* member) -> Result<std::optional<std::int64_t>> {
    const auto value = TRY(body.quantity(member));
    if (!value) return std::optional<std::int64_t>();
    return std::optional(static_cast<std::int64_t>(std::min(*value, kMax)));
  };
  if (const auto every = TRY(number("every_s"))) policy.every = std::chrono::seconds(*every);
  if (const auto rest = TRY(number("cooldown_s"))) policy.cooldown = std::chrono::seconds(*rest);
  TRY(ledger->policies().set_policy(policy));
  placer.policy_changed();
  return answer(policy_json(policy));
}

Result<Response> label_host(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  TRY(body.only({"label", "value"}));
  const auto ledger = TRY(placer.open_ledger());
  const std::string label = TRY(body.text("label"));
  const std::string value = TRY(body.text_or("value", ""));
  TRY(placer.set_label(request.params.at("NAME"), label, value, *ledger));
  return answer(json::object());
}

std::string drain_rule(const std::string& host) {
  return "drain-" + host;
}

// The host takes no VM any more, and those that it has leave it, now.
Result<Response> drain(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  TRY(body.only({"dry_run"}));
  const bool dry_run = TRY(body.flag("dry_run", false));
  const std::string& host = request.params.at("NAME");
  const placer::Fleet fleet = fleet_of_now(placer, request.deadline);
  if (fleet.find_host(host) == nullptr) {
    return fail(Errc::kNotFound, "no host named " + host + "; `samepage hosts` lists them");
  }
  const auto ledger = TRY(placer.open_ledger());
  const Rule rule{
      .kind = Rule::Kind::kMaintenance, .name = drain_rule(host), .vms = {}, .hosts = {host}};
  placer::PlanOptions options;
  options.goal = placer::Goal::kMovement;
  options.rules = TRY(ledger->policies().rules());
  const bool is_known = std::any_of(options.rules.begin(), options.rules.end(),
                                    [&](const Rule& each) { return each.name == rule.name; });
  if (!is_known) options.rules.push_back(rule);
  const placer::Plan plan = TRY(placer::plan(fleet, options));
  if (dry_run) return answer(to_json(plan));
  if (!is_known) TRY(ledger->policies().add(rule));
  const PlanId id = TRY(ledger->journal().propose(plan));
  if (plan.moves.empty()) return plan_answer(*ledger, id);
  if (const auto begun = placer.begin(id, *ledger); !begun) {
    return http::conflict(
        host + " takes no VM any more, but its VMs do not leave yet: " + begun.error().message());
  }
  return plan_answer(*ledger, id);
}

Result<Response> end_drain(Placer& placer, const Request& request) {
  const auto ledger = TRY(placer.open_ledger());
  const std::string& host = request.params.at("NAME");
  const auto removed = ledger->policies().remove(drain_rule(host));
  if (!removed && removed.error().code() == Errc::kNotFound) {
    return fail(Errc::kNotFound, host + " is not drained; `samepage rules` shows what holds");
  }
  TRY(removed);
  placer.policy_changed();
  return answer(json::object());
}

Result<Response> take_figure(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  TRY(body.only({"what", "value", "limit"}));
  const placer::Fleet fleet = placer.fleet();
  const placer::Vm* const vm = TRY(fleet.named(request.params.at("NAME")));
  placer::AppFigure figure;
  figure.what = TRY(body.text("what"));
  const auto value = TRY(body.quantity("value"));
  const auto limit = TRY(body.quantity("limit"));
  if (!value || !limit) {
    return fail(Errc::kInvalid, "the request needs \"value\" and \"limit\", two numbers");
  }
  figure.value = *value;
  figure.limit = *limit;
  TRY(placer.tell(vm->id, figure));
  return answer(json::object());
}

}  // namespace

void add_policy_routes(Placer& placer, std::vector<http::Route>& routes) {
  const auto add = [&](const char* method, const char* pattern, auto handler) {
    routes.push_back({method, pattern, [&placer, handler](const Request& request) {
                        return handler(placer, request);
                      }});
  };
  const auto without_body = [](auto handler) {
    return [handler](Placer& to, const Request&) { return handler(to); };
  };
  add("GET", "/api/v1/rules", without_body(list_rules));
  add("POST", "/api/v1/rules", add_rule);
  add("DELETE", "/api/v1/rules/NAME", remove_rule);
  add("GET", "/api/v1/policy", without_body(show_policy));
  add("POST", "/api/v1/policy", change_policy);
  add("POST", "/api/v1/hosts/NAME/labels", label_host);
  add("POST", "/api/v1/hosts/NAME/drain", drain);
  add("DELETE", "/api/v1/hosts/NAME/drain", end_drain);
  add("POST", "/api/v1/vms/NAME/figures", take_figure);
}

}  // namespace samepage::control
