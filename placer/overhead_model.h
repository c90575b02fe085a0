#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace samepage::placer {

/// Observations of one workload: named columns of equal length, one row an interval.
struct UsageTable {
  std::vector<std::string> columns;
  std::vector<std::vector<double>> rows;

  /// Reads CSV with a line of names first. kInvalid: no such table, or a value that is no number;
  /// the message names the line.
  static Result<UsageTable> parse(std::string_view csv);
};

/// What a workload will use as a VM, or on another class of hosts, from what it uses now: a linear
/// model over its metrics, U = c0 + sum c_i M_i (MOVE: Wood, Cherkasova, Ozonat and Shenoy 2008).
/// Metrics are taken in one by one while the cross-validated error falls by a hundredth; outliers
/// are given little weight (Huber, iteratively reweighted), since a monitoring interval that a
/// cron job fell into should not bend the line.
class OverheadModel {
 public:
  struct Options {
    std::size_t folds = 5;
    std::size_t metrics_max = 6;
    double improvement_min = 0.01;
  };

  /// From rows of metrics and what was used in the same rows. kInvalid: fewer rows than
  /// 2 * folds, rows of different number, or a column that is named in none.
  static Result<OverheadModel> fit(const UsageTable& native, const std::vector<double>& used,
                                   const Options& options);

  double predict(const std::vector<double>& row) const;  ///< A row of the table's columns.

  struct Term {
    std::size_t column = 0;
    std::string name;
    double factor = 0;
  };
  double constant() const { return constant_; }
  const std::vector<Term>& terms() const { return terms_; }

  /// Of predictions for rows that the model was not fitted to.
  double median_error_pct() const { return median_error_pct_; }
  double p90_error_pct() const { return p90_error_pct_; }

 private:
  double constant_ = 0;
  std::vector<Term> terms_;
  double median_error_pct_ = 0;
  double p90_error_pct_ = 0;
};

}  // namespace samepage::placer
