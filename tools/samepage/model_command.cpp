#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <memory>
#include <sstream>
#include <utility>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "placer/overhead_model.h"
#include "tools/samepage/json_reading.h"
#include "tools/samepage/subcommands.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using nlohmann::json;
using placer::OverheadModel;
using placer::UsageTable;

struct ModelOptions {
  std::string native;
  std::string virtualized;
  std::string column;
  std::string from;
  std::string to;
  std::string id;
};

/// What the placer knows of every VM, and models that it is to use may ask for.
constexpr std::array<std::string_view, 3> kKnown{"cpu", "network", "disk"};

bool is_known(std::string_view metric) {
  return std::find(kKnown.begin(), kKnown.end(), metric) != kKnown.end();
}

Result<UsageTable> read_table(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return fail(Errc::kNotFound, "cannot read " + path);
  auto table = UsageTable::parse(text.str());
  if (!table) return tl::unexpected(std::move(table).error().within(path));
  return table;
}

Result<std::size_t> column_of(const UsageTable& table, const ModelOptions& options) {
  if (options.column.empty()) return std::size_t{0};
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    if (table.columns[i] == options.column) return i;
  }
  return fail(Errc::kInvalid, options.virtualized + " has no column " + options.column);
}

json model_json(const OverheadModel& model, const std::string& of) {
  json terms = json::array();
  for (const OverheadModel::Term& term : model.terms()) {
    terms.push_back({{"metric", term.name}, {"factor", term.factor}});
  }
  return {{"of", of},
          {"constant", model.constant()},
          {"terms", std::move(terms)},
          {"median_error_pct", model.median_error_pct()},
          {"p90_error_pct", model.p90_error_pct()}};
}

/// The columns that the placer knows of every VM.
Result<UsageTable> known_part(const UsageTable& table, const std::string& path) {
  UsageTable part;
  std::vector<std::size_t> columns;
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    if (!is_known(table.columns[i])) continue;
    columns.push_back(i);
    part.columns.push_back(table.columns[i]);
  }
  if (columns.empty()) {
    return fail(Errc::kInvalid, path +
                                    " has no column cpu (cores), network or disk (bytes a "
                                    "second): what the placer knows of VMs");
  }
  for (const std::vector<double>& row : table.rows) {
    std::vector<double>& kept = part.rows.emplace_back();
    for (const std::size_t column : columns) kept.push_back(row.at(column));
  }
  return part;
}

Result<void> keep(Session& session, const ModelOptions& options, const OverheadModel& model,
                  const std::string& of) {
  json factors = json::object();
  for (const OverheadModel::Term& term : model.terms()) factors[term.name] = term.factor;
  const json body{{"source", options.from},
                  {"target", options.to},
                  {"of", of},
                  {"constant", model.constant()},
                  {"factors", std::move(factors)},
                  {"median_error_pct", model.median_error_pct()},
                  {"p90_error_pct", model.p90_error_pct()}};
  TRY(session.placer.send("POST", "/models", body.dump(), answer_deadline()));
  session.talk << "plans use it for VMs that go from " << printable(options.from) << " to "
               << printable(options.to) << "; `samepage model list` shows it\n";
  return {};
}

Result<void> list(Session& session) {
  const std::string body = TRY(session.placer.get("/models", answer_deadline()));
  const json models = TRY(parse(body, [](const json& answer) { return answer.at("models"); }));
  if (session.json) {
    session.out << body << '\n';
    return {};
  }
  if (models.empty()) {
    session.talk << "there is no model; `samepage model fit --from CLASS --to CLASS` makes one\n";
    return {};
  }
  Table table({{"ID", Table::Align::kRight},
               {"OF"},
               {"FROM"},
               {"TO"},
               {"MEDIAN ERROR", Table::Align::kRight}});
  for (const json& model : models) {
    table.add_row({fmt::format("{:.0f}", number(model, "id").value_or(0)), text(model, "of"),
                   text(model, "source"), text(model, "target"),
                   fmt::format("{:.1f} %", number(model, "median_error_pct").value_or(0))});
  }
  table.print(session.out, session.out_width);
  return {};
}

Result<void> remove(Session& session, const ModelOptions& options) {
  TRY(session.placer.send("DELETE", "/models/" + http::url_encoded(options.id), "",
                          answer_deadline()));
  session.talk << "plans use model " << printable(options.id) << " no more\n";
  return {};
}

Result<void> fit(Session& session, const ModelOptions& options) {
  const bool is_kept = !options.from.empty();
  UsageTable native = TRY(read_table(options.native));
  if (is_kept) native = TRY(known_part(native, options.native));
  const UsageTable used = TRY(read_table(options.virtualized));
  const std::size_t column = TRY(column_of(used, options));
  std::vector<double> values;
  for (const std::vector<double>& row : used.rows) values.push_back(row.at(column));
  if (is_kept && !is_known(used.columns.at(column))) {
    return fail(Errc::kInvalid, "plans use models of cpu, network and disk, not of " +
                                    used.columns.at(column) + "; --column chooses");
  }
  const OverheadModel model = TRY(OverheadModel::fit(native, values, {}));
  if (is_kept) TRY(keep(session, options, model, used.columns.at(column)));
  if (session.json) {
    session.out << model_json(model, used.columns.at(column)).dump() << '\n';
    return {};
  }
  session.out << fmt::format("{} = {:.6g}", printable(used.columns.at(column)), model.constant());
  for (const OverheadModel::Term& term : model.terms()) {
    session.out << fmt::format(" {} {:.6g} {}", term.factor < 0 ? "-" : "+", std::abs(term.factor),
                               printable(term.name));
  }
  session.out << fmt::format(
      "\nerror for rows that it was not fitted to: {:.2f} % median, {:.2f} % of 90 in 100\n",
      model.median_error_pct(), model.p90_error_pct());
  return {};
}

}  // namespace

void add_model(CLI::App& root, Subcommands& subcommands) {
  const auto options = std::make_shared<ModelOptions>();
  CLI::App& model = subcommands.add(root, "model", "Predict what a workload uses on other hardware",
                                    [](Session&) { return Result<void>(); });
  model.require_subcommand(1);
  CLI::App& fitted =
      subcommands.add(model, "fit", "Fit a linear model to what one workload used here and there",
                      [options](Session& session) { return fit(session, *options); });
  fitted
      .add_option("native", options->native,
                  "CSV of metrics, a line of names first, one row an interval")
      ->required()
      ->type_name(kFilePath);
  fitted
      .add_option("virtual", options->virtualized,
                  "CSV of what was used in the same intervals as a VM, or on the other hardware")
      ->required()
      ->type_name(kFilePath);
  fitted.add_option("--column", options->column, "The column of the second file; else its first")
      ->type_name("NAME");
  CLI::Option* const from = fitted.add_option(
      "--from", options->from, "Have plans use it for VMs that leave hosts of this hardware");
  CLI::Option* const to = fitted.add_option("--to", options->to, "And go to hosts of this one");
  from->type_name("CLASS")->needs(to);
  to->type_name("CLASS")->needs(from);

  subcommands.add(model, "list", "List the models that plans use", list);
  CLI::App& removed =
      subcommands.add(model, "remove", "Have plans use a model no more",
                      [options](Session& session) { return remove(session, *options); });
  removed.add_option("id", options->id, "The model")->required()->type_name("ID");
}

}  // namespace samepage::cli
