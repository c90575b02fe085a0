#include "placer/storm.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <tuple>

#include <fmt/format.h>

namespace samepage::placer {
namespace {

using std::chrono::milliseconds;

constexpr double kPeakSlack = 1.05;
constexpr int kBisections = 50;

/// How many VMs fit on a host that may be used up to `peak` of its capacity.
std::size_t room(const Storm& storm, const StormHost& host, double peak) {
  const double limit = std::min(peak, 1.0) * static_cast<double>(host.capacity_bytes);
  double left = limit - static_cast<double>(host.used_bytes);
  if (!host.has_template) left -= static_cast<double>(storm.template_bytes);
  if (left < 0 || storm.vm_bytes == 0) return 0;
  // A hair more, so that a peak computed from a whole number of VMs admits that number.
  const double vms = left / static_cast<double>(storm.vm_bytes) + 1e-9;
  return static_cast<std::size_t>(std::min(vms, static_cast<double>(storm.count)));
}

std::size_t room(const Storm& storm, const std::vector<StormHost>& hosts, double peak) {
  std::size_t sum = 0;
  for (const StormHost& host : hosts) sum += room(storm, host, peak);
  return sum;
}

/// The lowest peak that leaves room for the storm, by bisection: room grows with the peak.
double lowest_peak(const Storm& storm, const std::vector<StormHost>& hosts) {
  double low = 0;
  double high = 1;
  for (int i = 0; i < kBisections; ++i) {
    const double middle = (low + high) / 2;
    (room(storm, hosts, middle) >= storm.count ? high : low) = middle;
  }
  return high;
}

/// A host's line of boots: so many at once, each into the place that is free first.
class Line {
 public:
  Line(const Storm& storm, const StormHost& host) : boot_(storm.boot) {
    milliseconds begin{0};
    if (storm.template_bytes > 0 && !host.has_template) begin = storm.fetch;
    if (storm.template_bytes == 0 && host.shared_bytes == 0) begin = storm.cold_reading;
    for (unsigned i = 0; i < std::max(host.boots_at_once, 1U); ++i) free_at_.push(begin);
  }

  milliseconds next_end() const { return free_at_.top() + boot_; }

  milliseconds take() {
    const milliseconds end = next_end();
    free_at_.pop();
    free_at_.push(end);
    return end;
  }

 private:
  milliseconds boot_;
  std::priority_queue<milliseconds, std::vector<milliseconds>, std::greater<>> free_at_;
};

double used_after(const Storm& storm, const StormHost& host, std::size_t vms) {
  if (host.capacity_bytes == 0) return 0;
  std::uint64_t bytes = host.used_bytes + vms * storm.vm_bytes;
  if (vms > 0 && !host.has_template) bytes += storm.template_bytes;
  return static_cast<double>(bytes) / static_cast<double>(host.capacity_bytes);
}

std::string reason(const Storm& storm, const StormHost& host, const StormPlacement::Share& share,
                   std::size_t room_there) {
  if (share.vms == 0) {
    return room_there == 0 ? "no memory for one more" : "others run them sooner";
  }
  const char* warmth = storm.template_bytes > 0
                           ? host.has_template ? "holds the template" : "gets the template first"
                       : host.shared_bytes > 0 ? "holds VMs of this image"
                                               : "reads the image for the first time";
  return fmt::format("{}; {:.0f} % of its memory in use then{}", warmth, share.used_after * 100,
                     share.vms == room_there ? ", which is all it may take" : "");
}

}  // namespace

Result<StormPlacement> place_storm(const Storm& storm, const std::vector<StormHost>& hosts) {
  const std::size_t room_in_all = room(storm, hosts, 1);
  if (room_in_all < storm.count) {
    return fail(Errc::kUnavailable,
                fmt::format("the hosts have memory for {} of these {} VMs of {} MiB", room_in_all,
                            storm.count, storm.vm_bytes >> 20U));
  }
  StormPlacement placement;
  placement.peak_bound = lowest_peak(storm, hosts);
  placement.shares.resize(hosts.size());
  std::vector<std::size_t> room_at(hosts.size());
  std::vector<Line> lines;
  lines.reserve(hosts.size());

  // Soonest end first; of equals the host with more room left, then the first.
  using Candidate = std::tuple<milliseconds, double, std::size_t>;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
  const auto offer = [&](std::size_t i) {
    const std::size_t vms = placement.shares[i].vms;
    if (vms < room_at[i]) {
      candidates.emplace(lines[i].next_end(), used_after(storm, hosts[i], vms + 1), i);
    }
  };
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    room_at[i] = room(storm, hosts[i], placement.peak_bound * kPeakSlack);
    lines.emplace_back(storm, hosts[i]);
    offer(i);
  }
  for (std::size_t vm = 0; vm < storm.count; ++vm) {
    const std::size_t i = std::get<2>(candidates.top());
    candidates.pop();
    placement.host_of.push_back(i);
    ++placement.shares[i].vms;
    placement.shares[i].ends_at = std::max(placement.shares[i].ends_at, lines[i].take());
    offer(i);
  }
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    StormPlacement::Share& share = placement.shares[i];
    share.used_after = used_after(storm, hosts[i], share.vms);
    share.reason = reason(storm, hosts[i], share, room_at[i]);
    if (share.vms > 0) placement.peak = std::max(placement.peak, share.used_after);
  }
  return placement;
}

}  // namespace samepage::placer
