#pragma once

#include <algorithm>
#include <chrono>
#include <map>
#include <string>

#include "core/clock.h"

namespace samepage::placer {

/// Keeps VMs that were moved where they are for a while, and for twice as long after each further
/// move, so that a plan cannot undo the last one and do it again.
/// Invariant: forgets a VM once it has rested for its pause and as long again.
/// Threads: none of its own.
class Cooldowns {
 public:
  struct Options {
    std::chrono::seconds first{600};
    std::chrono::seconds longest{86'400};
  };

  explicit Cooldowns(const Options& options) : options_(options) {}

  void moved(const std::string& vm, Deadline at) {
    std::erase_if(resting_,
                  [&](const auto& each) { return at - each.second.until > each.second.pause; });
    const auto [found, is_new] = resting_.try_emplace(vm);
    Resting& resting = found->second;
    resting.pause = is_new ? options_.first : std::min(2 * resting.pause, options_.longest);
    resting.until = at + resting.pause;
  }

  /// Until when a VM stays; in the past when it may be moved.
  Deadline until(const std::string& vm) const {
    const auto found = resting_.find(vm);
    return found == resting_.end() ? Deadline::min() : found->second.until;
  }

 private:
  struct Resting {
    std::chrono::seconds pause{};
    Deadline until{};
  };

  Options options_;
  std::map<std::string, Resting> resting_;
};

}  // namespace samepage::placer
