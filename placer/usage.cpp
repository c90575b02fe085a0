#include "placer/usage.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "core/page_count.h"

namespace samepage::placer {
namespace {

std::string recent_text(const UsageSeries& series) {
  return fmt::format("{:.0f} % now, {:.0f} % in 95 of 100 observations", 100 * series.latest(),
                     100 * series.quantile(0.95));
}

}  // namespace

bool UsageSeries::add(double value) {
  if (!std::isfinite(value) || value < 0) return false;
  if (values_.size() < window_) {
    values_.push_back(static_cast<float>(value));
  } else {
    values_[next_] = static_cast<float>(value);
    next_ = (next_ + 1) % window_;
  }
  return true;
}

double UsageSeries::at(std::size_t age) const {
  const std::size_t newest =
      values_.size() < window_ ? values_.size() - 1 : (next_ + window_ - 1) % window_;
  return static_cast<double>(values_[(newest + values_.size() - age) % values_.size()]);
}

double UsageSeries::latest() const {
  return values_.empty() ? 0 : at(0);
}

double UsageSeries::mean() const {
  double sum = 0;
  for (const float value : values_) sum += static_cast<double>(value);
  return values_.empty() ? 0 : sum / static_cast<double>(values_.size());
}

double UsageSeries::peak() const {
  return values_.empty() ? 0
                         : static_cast<double>(*std::max_element(values_.begin(), values_.end()));
}

double UsageSeries::quantile(double part) const {
  if (values_.empty()) return 0;
  std::vector<float> sorted = values_;
  const auto rank = static_cast<std::ptrdiff_t>(
      std::clamp(part, 0.0, 1.0) * static_cast<double>(sorted.size() - 1) + 0.5);
  std::nth_element(sorted.begin(), sorted.begin() + rank, sorted.end());
  return static_cast<double>(sorted[static_cast<std::size_t>(rank)]);
}

std::size_t UsageSeries::above(double limit, std::size_t count) const {
  std::size_t found = 0;
  for (std::size_t age = 0; age < std::min(count, values_.size()); ++age) {
    if (at(age) > limit) ++found;
  }
  return found;
}

double UsageSeries::forecast() const {
  const double mu = mean();
  double covariance = 0;
  double variance = 0;
  for (std::size_t age = 0; age + 1 < values_.size(); ++age) {
    covariance += (at(age) - mu) * (at(age + 1) - mu);
    variance += (at(age + 1) - mu) * (at(age + 1) - mu);
  }
  const double phi = variance > 0 ? std::clamp(covariance / variance, -1.0, 1.0) : 0;
  return mu + phi * (latest() - mu);
}

std::optional<Hotspot> find_hotspot(const HostUsage& usage, const std::string& host,
                                    const HotspotOptions& options) {
  for (std::size_t i = 0; i < kResources; ++i) {
    const UsageSeries& series = usage.series.at(i);
    const double threshold = options.threshold.at(i);
    if (series.above(threshold, options.n) < options.k || series.forecast() <= threshold) continue;
    const auto resource = static_cast<Resource>(i);
    std::string why = fmt::format("{} uses too much of its {} ({})", host, to_string(resource),
                                  recent_text(series));
    if (resource == Resource::kMemory && usage.pressure.sharing_lost_pages > 0) {
      why += fmt::format(" after losing {:.0f} MiB of sharing",
                         usage.pressure.sharing_lost_pages / kPagesPerMib);
    }
    return Hotspot{.resource = resource, .why = std::move(why)};
  }
  if (usage.pressure.memory_stalled > options.memory_stalled_max) {
    return Hotspot{.resource = Resource::kMemory,
                   .why = fmt::format("tasks on {} wait for memory {:.0f} % of the time", host,
                                      100 * usage.pressure.memory_stalled),
                   .outright = true};
  }
  if (usage.pressure.cpu_stalled > options.cpu_stalled_max) {
    return Hotspot{.resource = Resource::kCpu,
                   .why = fmt::format("tasks on {} wait for a CPU {:.0f} % of the time", host,
                                      100 * usage.pressure.cpu_stalled),
                   .outright = true};
  }
  if (!usage.pressure.violation.empty()) {
    return Hotspot{.resource = Resource::kCpu, .why = usage.pressure.violation, .outright = true};
  }
  return std::nullopt;
}

double provision(const UsageSeries& usage, double share_max) {
  constexpr double kQuantile = 0.95;
  constexpr double kSaturated = 0.97;
  constexpr double kMore = 1.05;
  const double needed = usage.quantile(kQuantile);
  return share_max > 0 && needed >= kSaturated * share_max ? needed * kMore : needed;
}

}  // namespace samepage::placer
