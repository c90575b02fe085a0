#pragma once

#include <cstdint>
#include <vector>

#include "placer/scene.h"

namespace samepage::placer {

/// What the hosts of a simulation hold: which VMs, and the memory that these take once equal pages
/// are merged, some time after a VM's arrival. Outlived by the scene, whose VMs say what they have.
/// Threads: none of its own.
class SimulatedMemory {
 public:
  SimulatedMemory(const Scene& scene, std::size_t vms, std::size_t hosts, double merge_s);

  /// A VM comes from one host to another; either may be kNowhere.
  void move(std::uint32_t vm, std::uint32_t from, std::uint32_t to, double now_s);

  /// A VM that has been where it is for a while.
  void settle(std::uint32_t vm, double now_s) { arrived_s_[vm] = now_s - merge_s_; }

  bool is_merged(std::uint32_t vm, double now_s) const {
    return now_s - arrived_s_[vm] >= merge_s_;
  }

  /// The VM's pages are others than they were, or have been merged within the last `lately_s`.
  void changed(std::uint32_t vm);
  void note_merging(std::uint32_t vm, double now_s, double lately_s);

  /// Merged pages of a host, and those that are not merged yet.
  double pages(std::uint32_t host, double now_s);

  const std::vector<std::uint32_t>& vms_on(std::uint32_t host) const { return members_[host]; }

 private:
  double count(std::uint32_t host, double now_s) const;

  const Scene& scene_;
  double merge_s_;
  std::vector<double> arrived_s_;  ///< On its host, by VM.
  std::vector<std::vector<std::uint32_t>> members_;
  std::vector<double> pages_;
  std::vector<bool> is_dirty_;  ///< To be counted anew, by host.
};

}  // namespace samepage::placer
