#include "placer/simulated_moves.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "core/page.h"

namespace samepage::placer {

void SimulatedMoves::launch(double now_s) {
  std::map<std::uint32_t, std::size_t> busy;
  std::set<std::uint32_t> blocked;
  for (const Flight& flight : flights_) {
    ++busy[flight.step.source];
    ++busy[flight.step.target];
  }
  std::vector<Step> later;
  for (Step& step : waiting_) {
    const bool free = flights_.size() < policy_.at_once_max && !blocked.contains(step.source) &&
                      !blocked.contains(step.target) &&
                      busy[step.source] < policy_.at_once_per_host &&
                      busy[step.target] < policy_.at_once_per_host;
    if (!free) {
      blocked.insert(step.source);
      blocked.insert(step.target);
      later.push_back(std::move(step));
      continue;
    }
    ++busy[step.source];
    ++busy[step.target];
    const double took_s = std::max(1.0, step.cost_pages * kPageSize / policy_.link_bytes_s);
    flights_.push_back({.step = std::move(step), .started_s = now_s, .ends_s = now_s + took_s});
  }
  waiting_ = std::move(later);
}

std::vector<SimulatedMoves::Flight> SimulatedMoves::land(double now_s) {
  std::vector<Flight> landed;
  std::erase_if(flights_, [&](Flight& flight) {
    if (flight.ends_s > now_s) return false;
    landed.push_back(std::move(flight));
    return true;
  });
  return landed;
}

void SimulatedMoves::forget_vm(std::uint32_t vm) {
  std::erase_if(waiting_, [&](const Step& step) { return step.vm == vm; });
  std::erase_if(flights_, [&](const Flight& flight) { return flight.step.vm == vm; });
}

void SimulatedMoves::forget_host(std::uint32_t host) {
  const auto touches = [&](const Step& step) { return step.target == host || step.source == host; };
  std::erase_if(waiting_, touches);
  std::erase_if(flights_, [&](const Flight& flight) { return touches(flight.step); });
}

}  // namespace samepage::placer
