#include <cmath>
#include <fstream>
#include <memory>
#include <sstream>
#include <utility>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "placer/overhead_model.h"
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
};

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

Result<void> fit(Session& session, const ModelOptions& options) {
  const UsageTable native = TRY(read_table(options.native));
  const UsageTable used = TRY(read_table(options.virtualized));
  const std::size_t column = TRY(column_of(used, options));
  std::vector<double> values;
  for (const std::vector<double>& row : used.rows) values.push_back(row.at(column));
  const OverheadModel model = TRY(OverheadModel::fit(native, values, {}));
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
}

}  // namespace samepage::cli
