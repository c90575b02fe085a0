#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "placer/scene.h"

namespace samepage::placer {

/// How much of one resource was used over time: the last so many observations, oldest dropped.
/// Parts of a host's capacity, or cores and bytes a second of a VM: the caller's choice.
///
/// Threads: none of its own. Cost: add() constant, quantile() that of the window.
class UsageSeries {
 public:
  explicit UsageSeries(std::size_t window = 200) : window_(window) {}

  /// Numbers that cannot be (not finite, negative) are left out; false then.
  bool add(double value);

  std::size_t size() const { return values_.size(); }
  double latest() const;  ///< 0 when there is none; so are the others.
  double mean() const;
  double peak() const;
  double quantile(double part) const;  ///< 0.95: what 95 of 100 observations were at most.

  /// How many of the newest `count` observations were above the limit.
  std::size_t above(double limit, std::size_t count) const;

  /// The next observation by a first-order autoregressive model: mu + phi (u - mu), with mu and phi
  /// from the window.
  double forecast() const;

 private:
  double at(std::size_t age) const;  ///< 0 is the newest.

  std::size_t window_;
  std::size_t next_ = 0;  ///< Where the next value goes once the window is full.
  std::vector<float> values_;
};

/// What is known beside a host's utilisation.
struct Pressure {
  double memory_stalled = 0;  ///< Part of the time that tasks waited for memory (PSI "some").
  double cpu_stalled = 0;
  double io_stalled = 0;
  double sharing_lost_pages = 0;  ///< Shared pages that are shared no more, within the window.
  std::string violation;  ///< Gray box: an application's promise that is broken, as a sentence.
};

struct HotspotOptions {
  std::size_t n = 5;  ///< Of the newest n observations ...
  std::size_t k = 3;  ///< ... k must be above the threshold, and the forecast.
  std::array<double, kResources> threshold{0.75, 0.75, 0.75, 0.90};
  double memory_stalled_max = 0.10;
  double cpu_stalled_max = 0.60;
};

/// One host's four series and whether they make it a hotspot.
struct HostUsage {
  std::array<UsageSeries, kResources> series;
  Pressure pressure;

  explicit HostUsage(std::size_t window = 200)
      : series{UsageSeries(window), UsageSeries(window), UsageSeries(window), UsageSeries(window)} {
  }
};

/// What a VM used: cores, and bytes a second of network and disk.
struct VmUsage {
  std::array<UsageSeries, kLoads> series;
  std::string hardware = {};  ///< Class of the hosts on which this was observed; empty: unknown.

  explicit VmUsage(std::size_t window = 200)
      : series{UsageSeries(window), UsageSeries(window), UsageSeries(window)} {}
};

struct Hotspot {
  Resource resource = Resource::kCpu;
  std::string why;  ///< "host2 uses too much of its CPU (86 % now, ...)"

  /// The kernel or an application says so: whatever the utilisation, somebody should leave.
  bool outright = false;
};

/// Sandpiper's rule: k of the n newest observations and the forecast above the threshold; else
/// what the kernel or an application says outright.
std::optional<Hotspot> find_hotspot(const HostUsage& usage, const std::string& host,
                                    const HotspotOptions& options);

/// What a VM should be counted with: the 95th percentile, and a twentieth more where it uses all
/// that it may have and would likely use more.
double provision(const UsageSeries& usage, double share_max);

}  // namespace samepage::placer
