#include <charconv>
#include <cmath>
#include <ctime>
#include <memory>
#include <optional>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tools/samepage/api_messages.h"
#include "tools/samepage/interrupts.h"
#include "tools/samepage/plan_view.h"
#include "tools/samepage/quantity.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using Align = Table::Align;

struct PlanOptions {
  std::optional<double> gain_min_mib;
  std::string goal;
  std::vector<std::string> weights;  ///< NAME=VALUE
  std::optional<double> search_s;
  std::optional<unsigned> moves_max;
  bool explain = false;
  bool watch = false;
  double every_s = 10;
  std::string id;
  bool ids = false;

  PlanDetail detail() const { return explain ? PlanDetail::kTerms : PlanDetail::kReasons; }
};

Result<nlohmann::json> read_weights(const std::vector<std::string>& texts) {
  nlohmann::json weights = nlohmann::json::object();
  for (const std::string& text : texts) {
    const std::size_t equals = text.find('=');
    double value = -1;
    if (equals != std::string::npos) {
      const char* const end = text.data() + text.size();
      const auto read = std::from_chars(text.data() + equals + 1, end, value);
      if (read.ptr != end) value = -1;
    }
    if (value < 0) {
      return fail(Errc::kInvalid, "a weight is NAME=VALUE, such as sharing=1; not " + text);
    }
    weights[text.substr(0, equals)] = value;
  }
  return weights;
}

Result<std::string> request_of(const PlanOptions& options, bool keep) {
  nlohmann::json request = nlohmann::json::object();
  if (options.gain_min_mib) request["gain_min_mib"] = *options.gain_min_mib;
  if (!options.goal.empty()) request["goal"] = options.goal;
  if (!options.weights.empty()) request["weights"] = TRY(read_weights(options.weights));
  if (options.search_s) request["search_s"] = *options.search_s;
  if (options.moves_max) request["moves_max"] = *options.moves_max;
  if (!keep) request["keep"] = false;
  return request.dump();
}

// Plans that nobody asked to keep are computed again and again, and shown when they change.
Result<void> watch(Session& session, const PlanOptions& options) {
  const std::string request = TRY(request_of(options, false));
  const Interrupts interrupts;
  std::string last;
  while (interrupts.count() == 0) {
    const std::string answer = TRY(session.placer.send("POST", "/plans", request, work_deadline()));
    const StoredPlan stored = TRY(parse_plan(answer));
    std::string now = stored.plan.summary;
    for (const Move& move : stored.plan.moves) now += ' ' + move.vm + '>' + move.target;
    if (now != last) {
      print_plan(stored, session, options.detail());
      session.out.flush();
    }
    last = now;
    // Shorter than asked when Ctrl-C comes, which is what we want.
    const double pause_ns = options.every_s * 1e9;
    const timespec pause{.tv_sec = static_cast<std::time_t>(options.every_s),
                         .tv_nsec = static_cast<long>(std::fmod(pause_ns, 1e9))};
    if (interrupts.count() == 0) ::nanosleep(&pause, nullptr);
  }
  return {};
}

Result<void> compute(Session& session, const PlanOptions& options) {
  if (options.watch) return watch(session, options);
  const std::string request = TRY(request_of(options, true));
  const std::string answer = TRY(session.placer.send("POST", "/plans", request, work_deadline()));
  const StoredPlan plan = TRY(parse_plan(answer));
  print_plan(plan, session, options.detail());
  if (!plan.plan.moves.empty()) {
    session.talk << "\n`samepage apply " << printable(plan.plan.id) << "` carries it out\n";
  }
  return {};
}

Result<void> show(Session& session, const PlanOptions& options) {
  const std::string answer =
      TRY(session.placer.get("/plans/" + http::url_encoded(options.id), answer_deadline()));
  print_plan(TRY(parse_plan(answer)), session, options.detail());
  return {};
}

Result<void> list(Session& session, const PlanOptions& options) {
  const std::string answer = TRY(session.placer.get("/plans", answer_deadline()));
  const std::vector<StoredPlan> plans = TRY(parse_plans(answer));
  if (session.json && !options.ids) {
    session.out << answer << '\n';
    return {};
  }
  Table table(
      {{"PLAN"}, {"STATE"}, {"MOVES", Align::kRight}, {"GAIN", Align::kRight}, {"CREATED"}});
  for (const auto& [plan, json] : plans) {
    if (options.ids) session.out << printable(plan.id) << '\n';
    table.add_row({plan.id, plan.state, std::to_string(plan.moves.size()),
                   show_mib_change(plan.gain_mib), plan.created_at});
  }
  if (!options.ids) table.print(session.out, session.out_width);
  return {};
}

constexpr double kBytesPerMib = 1024.0 * 1024.0;

std::optional<double> achieved_gain(const Plan& plan) {
  if (!plan.achieved_before_mib || !plan.achieved_after_mib) return std::nullopt;
  return *plan.achieved_after_mib - *plan.achieved_before_mib;
}

/// What was predicted beside what came of it, for plans that were applied and for shadow plans.
Result<void> history(Session& session) {
  const std::string answer = TRY(session.placer.get("/plans", answer_deadline()));
  if (session.json) {
    session.out << answer << '\n';
    return {};
  }
  Table table({{"PLAN"},
               {"KIND"},
               {"STATE"},
               {"DONE", Align::kRight},
               {"GAIN PREDICTED", Align::kRight},
               {"ACHIEVED", Align::kRight},
               {"WIRE PREDICTED", Align::kRight},
               {"ACTUAL", Align::kRight},
               {"ENDED"}});
  for (const auto& [plan, json] : TRY(parse_plans(answer))) {
    if (plan.state == "proposed" && plan.kind != "shadow") continue;
    std::size_t done = 0;
    double predicted_mib = 0;
    double wire_mib = 0;
    for (const Move& move : plan.moves) {
      predicted_mib += move.cost_mib.value_or(0);
      wire_mib += move.wire_bytes.value_or(0) / kBytesPerMib;
      if (move.state == "done") ++done;
    }
    table.add_row({plan.id, plan.kind, plan.state, fmt::format("{}/{}", done, plan.moves.size()),
                   show_mib_change(plan.gain_mib), show_mib_change(achieved_gain(plan)),
                   show_mib(predicted_mib), done > 0 ? show_mib(wire_mib) : "-",
                   plan.ended_at.empty() ? "-" : plan.ended_at});
  }
  table.print(session.out, session.out_width);
  return {};
}

}  // namespace

void add_plan(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<PlanOptions>();
  CLI::App& plan =
      subcommands.add(root, "plan", "Compute which moves would share more memory",
                      [options](Session& session) { return compute(session, *options); });
  plan.add_option("--gain-min", options->gain_min_mib,
                  "Propose no move that gains fewer MiB; the placer's own bound otherwise")
      ->type_name("MIB")
      ->check(CLI::NonNegativeNumber.description(""));
  plan.add_option("--goal", options->goal,
                  "sharing (most), hosts (fewest), movement (only what rules, drains and hotspots "
                  "ask for) or balance")
      ->type_name("GOAL");
  plan.add_option("--weight", options->weights,
                  "Instead of the goal's: of sharing, hosts, movement or balance; may be repeated")
      ->type_name("NAME=VALUE");
  plan.add_option("--search", options->search_s,
                  "For fewest hosts: seconds to look for a packing of the whole fleet")
      ->type_name("SECONDS");
  plan.add_option("--moves", options->moves_max, "The most moves of a plan; 100 otherwise")
      ->type_name("COUNT")
      ->check(CLI::Range(1, 10'000).description(""));
  plan.add_flag("--explain", options->explain, "Show the terms of each move too");
  plan.add_flag("--watch", options->watch,
                "Go on computing, store nothing, and show the plan whenever it changes");
  plan.add_option("--every", options->every_s, "Seconds between two looks of --watch")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.1, 86'400.0).description(""));
  plan.require_subcommand(0, 1);

  CLI::App& shown =
      subcommands.add(plan, "show", "Show a stored plan, with each move's state",
                      [options](Session& session) { return show(session, *options); });
  shown.add_option("plan", options->id, "The plan")->required()->type_name(kPlanId);
  shown.add_flag("--explain", options->explain, "Show the terms of each move too");

  subcommands.add(plan, "history", "Compare what plans predicted with what came of them", history);

  CLI::App& listed =
      subcommands.add(plan, "list", "List the stored plans, the newest first",
                      [options](Session& session) { return list(session, *options); });
  listed.add_flag("--ids", options->ids, "Print the plans' ids only, one a line");
}

}  // namespace samepage::cli
