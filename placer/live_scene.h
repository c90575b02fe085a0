#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "core/result.h"
#include "placer/arrangement.h"
#include "placer/fleet.h"
#include "placer/rules.h"
#include "placer/usage.h"

namespace samepage::placer {

struct LiveSceneOptions {
  std::vector<Rule> rules = {};  ///< Hosts may also be named by a label, `KEY=VALUE`.
  std::map<std::string, std::string> resting =
      {};  ///< VMs, by UUID, that must stay for now, and why.
  std::chrono::milliseconds fingerprint_age_max{std::chrono::minutes(10)};
  std::vector<ClassModel> class_models = {};
};

/// A fleet as its agents reported it, in numbers.
///
/// Sketches become bitmaps in which a cell stands for the same part of the hashes in every VM: the
/// band whose cells the fullest host fills well, and the sparser ones folded until they are as
/// dense. Pages of different sharing domains meet in a cell by chance only, which the table of
/// pages allows for. Memory that an agent counted beyond what its VMs can hold is taken off the
/// host's.
struct LiveScene {
  Scene scene;                     ///< Hosts and VMs by their positions in the fleet.
  std::vector<Rule> rules = {};    ///< As in the options, labels looked up.
  std::vector<std::string> notes;  ///< What rules name and the fleet lacks.
};

/// kInvalid: rules that cannot hold; the message names them.
Result<LiveScene> make_live_scene(const Fleet& fleet, const LiveSceneOptions& options);

/// Counts VMs as not merged yet until every host needs what its agent counted.
void unsettle_unmerged(const Fleet& fleet, Arrangement& arrangement);

}  // namespace samepage::placer
