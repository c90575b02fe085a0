#include <fstream>
#include <memory>
#include <sstream>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/page_count.h"
#include "placer/simulator.h"
#include "tools/samepage/scenario_reader.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using nlohmann::json;
using placer::SimulatedMove;
using placer::SimulationReport;

struct SimulateOptions {
  std::string file;
  std::optional<std::uint64_t> seed;
};

constexpr double kBytesPerMib = 1024.0 * 1024.0;

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return fail(Errc::kNotFound, "cannot read " + path);
  return text.str();
}

json move_json(const SimulatedMove& move) {
  return {{"started_s", move.started_s}, {"ended_s", move.ended_s}, {"vm", move.vm},
          {"source", move.source},       {"target", move.target},   {"reason", move.reason},
          {"wire_bytes", move.bytes}};
}

json report_json(const SimulationReport& report) {
  json moves = json::array();
  for (const SimulatedMove& move : report.moves) moves.push_back(move_json(move));
  return {{"vms_placed", report.vms_placed},
          {"vms_refused", report.vms_refused},
          {"hosts_used", report.hosts_used},
          {"hosts_freed", report.hosts_freed},
          {"intervals", report.intervals},
          {"overloaded_first", report.overloaded_first},
          {"overloaded_last", report.overloaded_last},
          {"overloaded_intervals", report.overloaded_intervals},
          {"cleared_at_s", report.cleared_at_s},
          {"ping_pongs", report.ping_pongs},
          {"lies_left_out", report.lies_left_out},
          {"wire_bytes", report.bytes_moved},
          {"shared_mib", report.shared_pages / kPagesPerMib},
          {"moves", std::move(moves)},
          {"notes", report.notes}};
}

void print(const SimulationReport& report, Session& session) {
  Table moves({{"AT"}, {"MOVE"}, {"FROM"}, {"TO"}, {"WIRE", Table::Align::kRight}, {"WHY"}});
  for (const SimulatedMove& move : report.moves) {
    moves.add_row({fmt::format("{:.0f} s", move.started_s), move.vm, move.source, move.target,
                   fmt::format("{:.0f} MiB", move.bytes / kBytesPerMib), move.reason});
  }
  if (!report.moves.empty()) moves.print(session.out, session.out_width);
  session.out << fmt::format(
      "{} VMs placed, {} refused; {} hosts used, {} freed; {} moves, {:.0f} MiB on the wire, "
      "{:.0f} "
      "MiB shared at the end\n",
      report.vms_placed, report.vms_refused, report.hosts_used, report.hosts_freed,
      report.moves.size(), report.bytes_moved / kBytesPerMib, report.shared_pages / kPagesPerMib);
  session.out << fmt::format(
      "overloaded hosts: {} at worst, {} at the end, {} over all intervals{}\n",
      report.overloaded_first, report.overloaded_last, report.overloaded_intervals,
      report.cleared_at_s < 0 ? "; never cleared"
                              : fmt::format("; none after {:.0f} s", report.cleared_at_s));
  if (report.lies_left_out > 0) {
    session.talk << report.lies_left_out << " impossible numbers in reports were left out\n";
  }
  for (const std::string& note : report.notes) session.talk << printable(note) << '\n';
}

Result<void> run(Session& session, const SimulateOptions& options) {
  const std::string text = TRY(read_file(options.file));
  auto scenario = TRY(read_scenario(text));
  if (options.seed) scenario.seed = *options.seed;
  const SimulationReport report = TRY(placer::simulate(scenario));
  if (session.json) {
    session.out << report_json(report).dump() << '\n';
  } else {
    print(report, session);
  }
  return {};
}

}  // namespace

void add_simulate(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<SimulateOptions>();
  CLI::App& simulate =
      subcommands.add(root, "simulate",
                      "Run a written-down fleet through the placer's decisions, on a made-up clock",
                      [options](Session& session) { return run(session, *options); });
  simulate.add_option("scenario", options->file, "The scenario, as docs/formats/scenario.md")
      ->required()
      ->type_name(kFilePath);
  simulate.add_option("--seed", options->seed, "Instead of the scenario's own")->type_name("SEED");
}

}  // namespace samepage::cli
