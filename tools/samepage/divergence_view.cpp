#include "tools/samepage/divergence_view.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tools/samepage/quantity.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using fingerprinter::Cause;
using fingerprinter::kCauses;
using fingerprinter::kPageKinds;
using fingerprinter::Likeness;
using fingerprinter::PageKind;
using nlohmann::json;
using Align = Table::Align;

struct Row {
  std::string kind;
  std::string word;
  Likeness likeness;
};

void sort_by_difference(std::vector<Row>& rows) {
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    return a.likeness.different > b.likeness.different;
  });
}

/// The kinds that there are, those that differ most first.
std::vector<Row> kinds_of(const DivergenceMoment& moment) {
  std::vector<Row> rows;
  for (std::size_t i = 0; i < kPageKinds; ++i) {
    const Likeness& likeness = moment.sum.by_kind[i];
    if (likeness.total() == 0) continue;
    rows.push_back(
        {.kind = std::string(name_of(static_cast<PageKind>(i))), .word = "", .likeness = likeness});
  }
  sort_by_difference(rows);
  return rows;
}

/// The names that differ most.
std::vector<Row> words_of(const DivergenceMoment& moment, std::size_t names_max) {
  std::vector<Row> rows;
  for (const auto& [name, likeness] : moment.sum.by_word) {
    if (likeness.different == 0) continue;
    rows.push_back({.kind = std::string(name_of(name.first)),
                    .word = name.second.empty() ? "-" : name.second,
                    .likeness = likeness});
  }
  sort_by_difference(rows);
  if (rows.size() > names_max) rows.resize(names_max);
  return rows;
}

json likeness_json(const DivergenceMoment& moment, const Likeness& likeness) {
  return {{"same_address_mib", moment.mib(likeness.same_place)},
          {"elsewhere_mib", moment.mib(likeness.elsewhere)},
          {"different_mib", moment.mib(likeness.different)}};
}

json moment_json(const DivergenceMoment& moment, std::size_t names_max) {
  json body = likeness_json(moment, moment.sum.all);
  body.update({{"moment", moment.name},
               {"ran_s", moment.ran_s},
               {"zero_mib", moment.mib(moment.sum.zero)},
               {"named_share", moment.named_share()},
               {"kinds", json::array()},
               {"names", json::array()},
               {"causes", json::object()}});
  if (!moment.why_unnamed.empty()) body["why_unnamed"] = moment.why_unnamed;
  for (const Row& row : kinds_of(moment)) {
    json kind = likeness_json(moment, row.likeness);
    kind["kind"] = row.kind;
    body["kinds"].push_back(std::move(kind));
  }
  for (const Row& row : words_of(moment, names_max)) {
    json name = likeness_json(moment, row.likeness);
    name.update({{"kind", row.kind}, {"name", row.word}});
    body["names"].push_back(std::move(name));
  }
  for (std::size_t i = 0; i < kCauses; ++i) {
    body["causes"][std::string(name_of(static_cast<Cause>(i)))] =
        moment.mib(moment.sum.different_by_cause[i]);
  }
  return body;
}

json lengths_json(const fingerprinter::Lengths& lengths) {
  json classes = json::array();
  for (std::size_t i = 0; i < lengths.by_power.size(); ++i) {
    if (lengths.by_power[i] == 0) continue;
    classes.push_back({{"from", std::uint64_t{1} << i}, {"count", lengths.by_power[i]}});
  }
  return {{"count", lengths.count},
          {"blocks", lengths.sum},
          {"median", lengths.median()},
          {"longest", lengths.longest},
          {"classes", std::move(classes)}};
}

json execution_json(const fingerprinter::ExecutionLikeness& execution) {
  return {{"blocks", execution.blocks},
          {"in_step", execution.in_step},
          {"in_any_order", execution.in_any_order},
          {"equal_runs", lengths_json(execution.equal_runs)},
          {"bursts", lengths_json(execution.bursts)}};
}

std::vector<std::string> likeness_cells(const DivergenceMoment& moment, const Likeness& likeness) {
  return {show_mib(moment.mib(likeness.same_place)), show_mib(moment.mib(likeness.elsewhere)),
          show_mib(moment.mib(likeness.different))};
}

std::vector<Table::Column> likeness_columns(std::vector<Table::Column> before) {
  for (const char* name : {"SAME ADDRESS", "ELSEWHERE", "DIFFERENT"}) {
    before.push_back({name, Align::kRight});
  }
  return before;
}

void add_row(Table& table, std::vector<std::string> cells, const std::vector<std::string>& more) {
  cells.insert(cells.end(), more.begin(), more.end());
  table.add_row(std::move(cells));
}

void print_over_time(std::span<const DivergenceSet> sets, Session& session) {
  auto columns =
      likeness_columns({{"SETTING"}, {"AT"}, {"RAN", Align::kRight}, {"ZERO", Align::kRight}});
  columns.push_back({"NAMED", Align::kRight});
  Table table(std::move(columns));
  for (const DivergenceSet& set : sets) {
    for (const DivergenceMoment& moment : set.moments) {
      std::vector<std::string> cells = {set.setting.name, moment.name, show_ms(moment.ran_s * 1e3),
                                        show_mib(moment.mib(moment.sum.zero))};
      std::vector<std::string> more = likeness_cells(moment, moment.sum.all);
      more.push_back(show_share(moment.named_share(), 1));
      add_row(table, std::move(cells), more);
    }
  }
  table.print(session.out, session.out_width);
}

void print_what_differs(const DivergenceMoment& moment, std::size_t names_max, Session& session) {
  Table kinds(likeness_columns({{"PAGES"}}));
  for (const Row& row : kinds_of(moment)) {
    add_row(kinds, {row.kind}, likeness_cells(moment, row.likeness));
  }
  session.out << '\n';
  kinds.print(session.out, session.out_width);

  Table causes({{"WHY THEY DIFFER"}, {"DIFFERENT", Align::kRight}});
  for (std::size_t i = 0; i < kCauses; ++i) {
    causes.add_row({std::string(name_of(static_cast<Cause>(i))),
                    show_mib(moment.mib(moment.sum.different_by_cause[i]))});
  }
  session.out << '\n';
  causes.print(session.out, session.out_width);

  const std::vector<Row> words = words_of(moment, names_max);
  if (words.empty()) return;
  auto columns = likeness_columns({{"PAGES"}});
  columns.push_back({"NAME"});
  Table names(std::move(columns));
  for (const Row& row : words) {
    std::vector<std::string> more = likeness_cells(moment, row.likeness);
    more.push_back(row.word);
    add_row(names, {row.kind}, more);
  }
  session.out << '\n';
  names.print(session.out, session.out_width);
}

void print_gains(std::span<const DivergenceSet> sets, Session& session) {
  if (sets.size() < 2) return;
  Table table({{"SETTING"},
               {"SHAREABLE", Align::kRight},
               {"GAIN", Align::kRight},
               {"DIFFERENT", Align::kRight}});
  for (const DivergenceSet& set : sets) {
    const DivergenceMoment& last = set.moments.back();
    table.add_row({set.setting.name, show_mib(set.shareable_mib()),
                   show_mib_change(set.shareable_mib() - sets.front().shareable_mib()),
                   show_mib(last.mib(last.sum.all.different))});
  }
  session.out << '\n';
  table.print(session.out, session.out_width);
}

void print_execution(std::span<const DivergenceSet> sets, Session& session) {
  if (!sets.front().execution) return;
  Table table({{"SETTING"},
               {"BLOCKS", Align::kRight},
               {"IN STEP", Align::kRight},
               {"IN ANY ORDER", Align::kRight},
               {"EQUAL RUN", Align::kRight},
               {"BURSTS", Align::kRight},
               {"BURST", Align::kRight},
               {"LONGEST", Align::kRight}});
  for (const DivergenceSet& set : sets) {
    const fingerprinter::ExecutionLikeness& found = *set.execution;
    const auto number = [](std::uint64_t count) { return show_count(static_cast<double>(count)); };
    const auto blocks = static_cast<double>(found.blocks);
    table.add_row({set.setting.name, number(found.blocks),
                   show_share(static_cast<double>(found.in_step), blocks),
                   show_share(static_cast<double>(found.in_any_order), blocks),
                   number(found.equal_runs.median()), number(found.bursts.count),
                   number(found.bursts.median()), number(found.bursts.longest)});
  }
  session.out << '\n';
  table.print(session.out, session.out_width);
}

}  // namespace

void print_divergence(std::span<const DivergenceSet> sets, std::size_t names_max,
                      Session& session) {
  print_over_time(sets, session);
  print_what_differs(sets.front().moments.back(), names_max, session);
  print_gains(sets, session);
  print_execution(sets, session);
  for (const DivergenceSet& set : sets) {
    for (const DivergenceMoment& moment : set.moments) {
      if (moment.why_unnamed.empty()) continue;
      session.talk << printable(set.setting.name) << " at " << moment.name
                   << ": pages have no names: " << printable(moment.why_unnamed) << '\n';
    }
  }
}

json divergence_json(std::span<const DivergenceSet> sets, std::size_t names_max) {
  json body = json::array();
  for (const DivergenceSet& set : sets) {
    json each = {{"setting", set.setting.name},
                 {"shareable_mib", set.shareable_mib()},
                 {"gain_mib", set.shareable_mib() - sets.front().shareable_mib()},
                 {"moments", json::array()}};
    for (const DivergenceMoment& moment : set.moments) {
      each["moments"].push_back(moment_json(moment, names_max));
    }
    if (set.execution) each["execution"] = execution_json(*set.execution);
    body.push_back(std::move(each));
  }
  return body;
}

}  // namespace samepage::cli
