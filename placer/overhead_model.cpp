#include "placer/overhead_model.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include <fmt/format.h>

namespace samepage::placer {
namespace {

using Columns = std::vector<std::size_t>;
using Row = std::vector<double>;

constexpr std::size_t kRowsMax = 1'000'000;

std::vector<std::string_view> cells_of(std::string_view line) {
  std::vector<std::string_view> cells;
  while (true) {
    const std::size_t comma = line.find(',');
    std::string_view cell = line.substr(0, comma);
    while (!cell.empty() && (cell.front() == ' ' || cell.front() == '"')) cell.remove_prefix(1);
    while (!cell.empty() && (cell.back() == ' ' || cell.back() == '"' || cell.back() == '\r')) {
      cell.remove_suffix(1);
    }
    cells.push_back(cell);
    if (comma == std::string_view::npos) return cells;
    line.remove_prefix(comma + 1);
  }
}

std::optional<double> number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) {
    return std::nullopt;
  }
  return value;
}

/// Solves a symmetric positive system by Cholesky; a column that adds nothing gets 0.
Row solve(std::vector<Row> a, Row b) {
  const std::size_t n = b.size();
  constexpr double kSingular = 1e-10;
  std::vector<bool> empty(n);
  for (std::size_t i = 0; i < n; ++i) {
    const double diagonal = a[i][i];
    for (std::size_t k = 0; k < i; ++k) a[i][i] -= a[i][k] * a[i][k];
    empty[i] = a[i][i] <= kSingular * std::max(diagonal, 1e-300);
    a[i][i] = empty[i] ? 1 : std::sqrt(a[i][i]);
    for (std::size_t j = i + 1; j < n; ++j) {
      for (std::size_t k = 0; k < i; ++k) a[j][i] -= a[j][k] * a[i][k];
      a[j][i] = empty[i] ? 0 : a[j][i] / a[i][i];
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t k = 0; k < i; ++k) b[i] -= a[i][k] * b[k];
    b[i] = empty[i] ? 0 : b[i] / a[i][i];
  }
  for (std::size_t i = n; i-- > 0;) {
    for (std::size_t k = i + 1; k < n; ++k) b[i] -= a[k][i] * b[k];
    b[i] = empty[i] ? 0 : b[i] / a[i][i];
  }
  return b;
}

double dot(const Row& factors, const Row& row, const Columns& columns) {
  double sum = factors[0];
  for (std::size_t i = 0; i < columns.size(); ++i) sum += factors[i + 1] * row[columns[i]];
  return sum;
}

/// What is fitted: metrics, what was used, and how many folds are left out in turn.
struct Sample {
  const std::vector<Row>& rows;
  const Row& used;
  std::size_t folds;

  bool is_in(std::size_t row, std::size_t fold) const { return row % folds == fold; }
};

Row weighted_fit(const Sample& sample, const Columns& columns, std::size_t without,
                 const Row& weights) {
  const std::size_t n = columns.size() + 1;
  std::vector<Row> a(n, Row(n));
  Row b(n);
  Row x(n, 1);
  for (std::size_t r = 0; r < sample.rows.size(); ++r) {
    if (sample.is_in(r, without)) continue;
    for (std::size_t i = 1; i < n; ++i) x[i] = sample.rows[r][columns[i - 1]];
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j <= i; ++j) a[i][j] += weights[r] * x[i] * x[j];
      b[i] += weights[r] * x[i] * sample.used[r];
    }
  }
  return solve(std::move(a), std::move(b));
}

double median(Row values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// Huber's weights from residuals: 1 within 1.345 robust deviations, falling beyond.
Row robust_fit(const Sample& sample, const Columns& columns, std::size_t without) {
  constexpr int kIterations = 15;
  constexpr double kHuber = 1.345;
  constexpr double kMadToDeviation = 1.4826;
  Row weights(sample.rows.size(), 1);
  Row factors;
  for (int i = 0; i < kIterations; ++i) {
    factors = weighted_fit(sample, columns, without, weights);
    Row residuals;
    for (std::size_t r = 0; r < sample.rows.size(); ++r) {
      residuals.push_back(std::abs(sample.used[r] - dot(factors, sample.rows[r], columns)));
    }
    const double limit = std::max(1e-12, kHuber * kMadToDeviation * median(residuals));
    for (std::size_t r = 0; r < weights.size(); ++r) {
      weights[r] = residuals[r] <= limit ? 1 : limit / residuals[r];
    }
  }
  return factors;
}

/// Errors in percent of rows left out of the fit.
Row cross_errors(const Sample& sample, const Columns& columns) {
  Row errors;
  for (std::size_t fold = 0; fold < sample.folds; ++fold) {
    const Row factors = robust_fit(sample, columns, fold);
    for (std::size_t r = fold; r < sample.rows.size(); r += sample.folds) {
      const double truth = std::max(std::abs(sample.used[r]), 1e-9);
      errors.push_back(100 * std::abs(dot(factors, sample.rows[r], columns) - truth) / truth);
    }
  }
  return errors;
}

// Not the median: two metrics that explain half of the rows each would both look perfect to it.
double selection_error(const Sample& sample, const Columns& columns) {
  constexpr double kErrorMax = 1'000;
  const Row errors = cross_errors(sample, columns);
  double sum = 0;
  for (const double error : errors) sum += std::min(error, kErrorMax);
  return sum / static_cast<double>(errors.size());
}

Columns select(const Sample& sample, std::size_t columns, const OverheadModel::Options& options) {
  Columns chosen;
  double error = selection_error(sample, chosen);
  while (chosen.size() < std::min(columns, options.metrics_max)) {
    std::optional<std::size_t> best;
    double best_error = error * (1 - options.improvement_min);
    for (std::size_t column = 0; column < columns; ++column) {
      if (std::find(chosen.begin(), chosen.end(), column) != chosen.end()) continue;
      chosen.push_back(column);
      const double found = selection_error(sample, chosen);
      chosen.pop_back();
      if (found >= best_error) continue;
      best = column;
      best_error = found;
    }
    if (!best) break;
    chosen.push_back(*best);
    error = best_error;
  }
  return chosen;
}

}  // namespace

Result<UsageTable> UsageTable::parse(std::string_view csv) {
  UsageTable table;
  std::size_t line_number = 0;
  while (!csv.empty()) {
    const std::size_t end = csv.find('\n');
    const std::string_view line = csv.substr(0, end);
    csv.remove_prefix(end == std::string_view::npos ? csv.size() : end + 1);
    ++line_number;
    if (line.empty() || line == "\r") continue;
    const std::vector<std::string_view> cells = cells_of(line);
    if (table.columns.empty()) {
      table.columns.assign(cells.begin(), cells.end());
      continue;
    }
    if (cells.size() != table.columns.size() || table.rows.size() >= kRowsMax) {
      return fail(Errc::kInvalid, fmt::format("line {} has {} values instead of {}", line_number,
                                              cells.size(), table.columns.size()));
    }
    Row row;
    for (const std::string_view cell : cells) {
      const std::optional<double> value = number(cell);
      if (!value) {
        return fail(Errc::kInvalid, fmt::format("line {}: {} is no number", line_number, cell));
      }
      row.push_back(*value);
    }
    table.rows.push_back(std::move(row));
  }
  if (table.rows.empty()) return fail(Errc::kInvalid, "there is no row of numbers");
  return table;
}

Result<OverheadModel> OverheadModel::fit(const UsageTable& native, const std::vector<double>& used,
                                         const Options& options) {
  if (native.rows.size() != used.size()) {
    return fail(Errc::kInvalid, fmt::format("{} rows of metrics and {} of what was used",
                                            native.rows.size(), used.size()));
  }
  if (used.size() < 2 * options.folds) {
    return fail(Errc::kInvalid, fmt::format("{} rows are too few: {} are the least", used.size(),
                                            2 * options.folds));
  }
  const Sample sample{.rows = native.rows, .used = used, .folds = options.folds};
  const Columns chosen = select(sample, native.columns.size(), options);
  const Row factors = robust_fit(sample, chosen, options.folds);  // No fold is left out.
  OverheadModel model;
  model.constant_ = factors[0];
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    model.terms_.push_back(
        {.column = chosen[i], .name = native.columns[chosen[i]], .factor = factors[i + 1]});
  }
  Row errors = cross_errors(sample, chosen);
  std::sort(errors.begin(), errors.end());
  model.median_error_pct_ = errors[errors.size() / 2];
  model.p90_error_pct_ = errors[errors.size() * 9 / 10];
  return model;
}

double OverheadModel::predict(const std::vector<double>& row) const {
  double sum = constant_;
  for (const Term& term : terms_) sum += term.factor * row.at(term.column);
  return std::max(0.0, sum);
}

}  // namespace samepage::placer
