#include <algorithm>
#include <array>
#include <charconv>

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
using placer::ClassModel;
using placer::PlanId;
using placer::Rule;

/// In the order of placer::Loads.
constexpr std::array<std::string_view, placer::kLoads> kModelled{"cpu", "network", "disk"};

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
  return {{"mode", to_string(policy.mode)},          {"goal", to_string(policy.goal)},
          {"every_s", policy.every.count()},         {"cooldown_s", policy.cooldown.count()},
          {"moves_at_once", policy.limits.at_once},  {"moves_per_host", policy.limits.per_host},
          {"moves_per_link", policy.limits.per_link}};
}

/// Rules beside which no plan can be made would lame the placer: they are refused at the door.
Result<void> check_together(Placer& placer, std::vector<Rule> rules) {
  placer::PlanOptions options;
  options.goal = placer::Goal::kMovement;
  options.rules = std::move(rules);
  TRY(placer::plan(placer.fleet(), options));
  return {};
}

Result<Response> list_rules(Placer& placer, const Request& /*request*/) {
  const auto ledger = TRY(placer.open_ledger());
  json rules = json::array();
  for (const Rule& rule : TRY(ledger->policies().rules())) rules.push_back(rule_json(rule));
  return answer({{"rules", std::move(rules)}});
}

Result<Rule> read_rule(const RequestBody& body) {
  TRY(body.only({"name", "kind", "vms", "hosts"}));
  Rule rule;
  rule.name = TRY(body.text("name"));
  const std::string kind = TRY(body.text("kind"));
  rule.kind = TRY(placer::parse_rule_kind(kind));
  rule.vms = TRY(body.texts("vms"));
  rule.hosts = TRY(body.texts("hosts"));
  return rule;
}

Result<Response> replace_rules(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  TRY(body.only({"rules"}));
  std::vector<Rule> rules;
  for (const RequestBody& each : TRY(body.objects("rules"))) rules.push_back(TRY(read_rule(each)));
  if (const auto holds = check_together(placer, rules); !holds) {
    return http::conflict(holds.error().message());
  }
  const auto ledger = TRY(placer.open_ledger());
  TRY(ledger->policies().replace(rules));
  placer.policy_changed();
  return list_rules(placer, request);
}

Result<Response> add_rule(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  const Rule rule = TRY(read_rule(body));
  const auto ledger = TRY(placer.open_ledger());
  std::vector<Rule> together = TRY(ledger->policies().rules());
  together.push_back(rule);
  if (const auto holds = check_together(placer, std::move(together)); !holds) {
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

Result<Response> show_policy(Placer& placer, const Request& /*request*/) {
  const auto ledger = TRY(placer.open_ledger());
  const placer::Policy policy = TRY(ledger->policies().policy());
  return answer(policy_json(policy));
}

Result<Response> change_policy(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  TRY(body.only({"mode", "goal", "every_s", "cooldown_s", "moves_at_once", "moves_per_host",
                 "moves_per_link"}));
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
  placer::MoveLimits& limits = policy.limits;
  for (const auto& [name, limit] :
       {std::pair("moves_at_once", &limits.at_once), std::pair("moves_per_host", &limits.per_host),
        std::pair("moves_per_link", &limits.per_link)}) {
    if (const auto value = TRY(number(name))) *limit = static_cast<std::size_t>(*value);
  }
  TRY(ledger->policies().set_policy(policy));
  placer.policy_changed();
  return answer(policy_json(policy));
}

json model_json(const ClassModel& model) {
  return {{"id", model.id},
          {"source", model.source},
          {"target", model.target},
          {"of", kModelled.at(static_cast<std::size_t>(model.of))},
          {"constant", model.constant},
          {"factors",
           {{"cpu", model.factors[0]}, {"network", model.factors[1]}, {"disk", model.factors[2]}}},
          {"median_error_pct", model.median_error_pct},
          {"p90_error_pct", model.p90_error_pct}};
}

Result<Response> list_models(Placer& placer, const Request& /*request*/) {
  const auto ledger = TRY(placer.open_ledger());
  json models = json::array();
  for (const ClassModel& model : TRY(ledger->policies().class_models())) {
    models.push_back(model_json(model));
  }
  return answer({{"models", std::move(models)}});
}

Result<Response> keep_model(Placer& placer, const Request& request) {
  const RequestBody body = TRY(RequestBody::parse(request.body));
  TRY(body.only(
      {"source", "target", "of", "constant", "factors", "median_error_pct", "p90_error_pct"}));
  ClassModel model;
  model.source = TRY(body.text("source"));
  model.target = TRY(body.text("target"));
  const std::string of = TRY(body.text("of"));
  const auto* const known = std::find(kModelled.begin(), kModelled.end(), of);
  if (known == kModelled.end()) return fail(Errc::kInvalid, "\"of\" is cpu, network or disk");
  model.of = static_cast<placer::Resource>(known - kModelled.begin());
  model.constant = TRY(body.number("constant")).value_or(0);
  model.median_error_pct = TRY(body.number("median_error_pct")).value_or(0);
  model.p90_error_pct = TRY(body.number("p90_error_pct")).value_or(0);
  for (const auto& [name, factor] : TRY(body.numbers("factors"))) {
    const auto* const metric = std::find(kModelled.begin(), kModelled.end(), name);
    if (metric == kModelled.end()) {
      return fail(Errc::kInvalid, "no metric is named " + name + "; there are cpu, network, disk");
    }
    model.factors.at(static_cast<std::size_t>(metric - kModelled.begin())) = factor;
  }
  const auto ledger = TRY(placer.open_ledger());
  const ClassModel kept = TRY(ledger->policies().keep_class_model(std::move(model)));
  placer.policy_changed();
  return answer(model_json(kept));
}

Result<Response> remove_model(Placer& placer, const Request& request) {
  const std::string& text = request.params.at("ID");
  std::int64_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc() || end != text.data() + text.size()) id = 0;
  const auto ledger = TRY(placer.open_ledger());
  TRY(ledger->policies().remove_class_model(id));
  placer.policy_changed();
  return answer(json::object());
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
  placer::PlanOptions options = TRY(ledger->plan_options());
  options.goal = placer::Goal::kMovement;
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
  add_routes(placer, routes,
             {{"GET", "/api/v1/rules", list_rules},
              {"POST", "/api/v1/rules", add_rule},
              {"PUT", "/api/v1/rules", replace_rules},
              {"DELETE", "/api/v1/rules/NAME", remove_rule},
              {"GET", "/api/v1/policy", show_policy},
              {"POST", "/api/v1/policy", change_policy},
              {"GET", "/api/v1/models", list_models},
              {"POST", "/api/v1/models", keep_model},
              {"DELETE", "/api/v1/models/ID", remove_model},
              {"POST", "/api/v1/hosts/NAME/labels", label_host},
              {"POST", "/api/v1/hosts/NAME/drain", drain},
              {"DELETE", "/api/v1/hosts/NAME/drain", end_drain},
              {"POST", "/api/v1/vms/NAME/figures", take_figure}});
}

}  // namespace samepage::control
