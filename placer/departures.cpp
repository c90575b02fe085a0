#include "placer/departures.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

namespace samepage::placer {
namespace {

bool has_ended(const MoveRecord& record) {
  return record.state != MoveState::kPlanned && record.state != MoveState::kRunning;
}

bool must_wait_for(const PlannedMove& move, const PlannedMove& earlier) {
  return earlier.vm == move.vm || earlier.source == move.target;
}

/// What the moves that go on occupy.
class Traffic {
 public:
  explicit Traffic(const MoveLimits& limits) : limits_(limits) {}

  bool has_room(const PlannedMove& move) {
    return moves_ < limits_.at_once && hosts_[move.source] < limits_.per_host &&
           hosts_[move.target] < limits_.per_host && links_[link(move)] < limits_.per_link;
  }
  void add(const PlannedMove& move) {
    ++moves_;
    ++hosts_[move.source];
    ++hosts_[move.target];
    ++links_[link(move)];
  }

 private:
  static std::pair<std::string, std::string> link(const PlannedMove& move) {
    return std::minmax(move.source, move.target);
  }

  MoveLimits limits_;
  std::size_t moves_ = 0;
  std::map<std::string, std::size_t> hosts_;
  std::map<std::pair<std::string, std::string>, std::size_t> links_;
};

}  // namespace

std::vector<std::size_t> departures(const std::vector<MoveRecord>& moves,
                                    const MoveLimits& limits) {
  Traffic traffic(limits);
  for (const MoveRecord& record : moves) {
    if (record.state == MoveState::kRunning) traffic.add(record.move);
  }
  std::vector<std::size_t> chosen;
  for (std::size_t position = 0; position < moves.size(); ++position) {
    const MoveRecord& record = moves[position];
    if (record.state != MoveState::kPlanned || !traffic.has_room(record.move)) continue;
    const auto here = moves.begin() + static_cast<std::ptrdiff_t>(position);
    const bool waits = std::any_of(moves.begin(), here, [&](const MoveRecord& earlier) {
      return !has_ended(earlier) && must_wait_for(record.move, earlier.move);
    });
    if (waits) continue;
    traffic.add(record.move);
    chosen.push_back(position);
  }
  return chosen;
}

}  // namespace samepage::placer
