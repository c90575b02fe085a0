#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "placer/class_costs.h"
#include "placer/packing/sharing_index.h"
#include "placer/scene.h"

namespace samepage::placer {

/// VMs that move as one: a VM alone, or those that a rule keeps together.
struct Unit {
  std::vector<std::uint32_t> vms;
  PackItem demand;        ///< Of all of them, merged.
  double full_pages = 0;  ///< Before merging.
  std::size_t set = 0;    ///< Cells of `demand`.
};

/// Why something cannot go to a host.
struct Obstacle {
  enum class Kind : std::uint8_t { kClosed, kRule, kApart, kMemory, kLoad };
  Kind kind = Kind::kMemory;
  Resource resource = Resource::kMemory;
  double needed = 0;  ///< Of the resource.
  double free = 0;
};

/// Who is where while moves are thought through, one after the other: the working copy of a scene.
/// Any number of hosts; a move costs what the two hosts' VMs do.
///
/// Invariant: memory is counted twice. `merged` is what the VMs need once equal pages are merged;
/// `arriving` counts every page of a VM that arrived since settle(), because merging takes minutes.
/// A host takes what fits both ways, the merged way with the headroom left free.
/// Threads: none of its own; const methods may run at the same time. Lifetime: borrows the scene,
/// which must not change.
class Arrangement {
 public:
  struct Options {
    double headroom = 0.10;  ///< The part of every host's memory that stays free.
    double load_max = 0.75;  ///< The part of every other resource that may be used.
  };

  Arrangement(const Scene& scene, const Options& options);

  const Scene& scene() const { return *scene_; }
  std::uint32_t host_of(std::uint32_t vm) const { return host_of_[vm]; }
  const std::vector<std::uint32_t>& hosts_of() const { return host_of_; }
  const std::vector<std::uint32_t>& on(std::uint32_t host) const { return hosts_[host].vms; }
  Unit unit(std::uint32_t vm) const;
  Unit unit_of(std::span<const std::uint32_t> vms) const;

  double merged(std::uint32_t host) const { return hosts_[host].merged; }  ///< Pages.
  double arriving(std::uint32_t host) const;                               ///< Pages.
  const Loads& loads(std::uint32_t host) const { return hosts_[host].loads; }

  /// What the unit uses on that host, which may be of another class than where it was measured.
  Loads loads_on(const Unit& unit, std::uint32_t host) const;
  const ClassCosts& costs() const { return costs_; }
  std::span<const std::uint64_t> cells(std::uint32_t host) const { return hosts_[host].cells; }

  /// From 0 to 1 and beyond: CPU, network, disk, memory (what arrived is not merged yet).
  std::array<double, kResources> utilisation(std::uint32_t host) const;

  /// Pages that VMs on a host have already of what is asked for; `gone` are left out of account.
  double common(const PackItem& demand, std::uint32_t host,
                std::span<const std::uint32_t> gone = {}) const;

  /// From now on common_cells() looks hosts up instead of comparing with each; for large fleets.
  void index_hosts();

  /// Of the unit's cells, how many each host has: what the two methods below that take `cells` ask
  /// for. One call for all hosts costs tens of microseconds for 10,000 of them, once indexed.
  void common_cells(const Unit& unit, std::vector<std::uint16_t>& cells) const;
  double common(const Unit& unit, std::uint32_t host, std::size_t cells) const;  ///< Pages.
  std::optional<Obstacle> obstacle_given(const Unit& unit, std::uint32_t host,
                                         std::size_t cells) const;

  /// What keeps the unit from a host once the VMs `gone` have left it; none when it may go.
  std::optional<Obstacle> obstacle(const Unit& unit, std::uint32_t host,
                                   std::span<const std::uint32_t> gone = {}) const;
  std::string describe(const Obstacle& obstacle, std::uint32_t host) const;

  /// kNowhere takes it off its host.
  void move(std::uint32_t vm, std::uint32_t target);
  void move(const Unit& unit, std::uint32_t target);

  /// The VM, which is on a host, arrived there lately: none of its pages is merged yet.
  void unsettle(std::uint32_t vm);

  /// Everything that arrived is merged now.
  void settle();

  /// Takes back all moves made since `mark`, newest first.
  std::size_t mark() const { return log_.size(); }
  void roll_back(std::size_t mark);

 private:
  struct Place {
    std::vector<std::uint64_t> cells;  // Of all VMs.
    std::size_t set = 0;               // In `cells`.
    double own = 0;
    Loads loads{};
    double merged = 0;
    std::vector<std::uint32_t> vms;
    std::vector<std::uint32_t> arrived;  // Among vms, since settle().
    double stayed = 0;                   // Pages of the others, merged.
    double arrived_full = 0;
  };
  struct Logged {
    std::uint32_t vm;
    std::uint32_t from;
    bool had_arrived;
  };
  /// Memory of some VMs of a host together.
  struct Union {
    std::vector<std::uint64_t> cells;
    double own = 0;
  };

  /// What a host holds, and what of a unit's cells is among it.
  struct Held {
    std::size_t set = 0;
    std::size_t common = 0;
    double own = 0;
  };

  void put(std::uint32_t vm, std::uint32_t host, bool arrives);
  bool take(std::uint32_t vm, std::uint32_t host);
  void recount(std::uint32_t host);
  void recount_merged(std::uint32_t host);
  void recount_stayed(Place& place) const;
  Union union_without(const Place& place, std::span<const std::uint32_t> gone,
                      bool stayed_only) const;
  double pages(const Union& memory) const;
  double arriving(std::uint32_t host, std::span<const std::uint32_t> gone) const;
  std::optional<Obstacle> rule_against(const Unit& unit, std::uint32_t host,
                                       std::span<const std::uint32_t> gone) const;
  std::optional<Obstacle> load_against(const Unit& unit, std::uint32_t host,
                                       std::span<const std::uint32_t> gone) const;
  std::optional<Obstacle> memory_against(const Unit& unit, std::uint32_t host, const Held& held,
                                         double arriving) const;

  const Scene* scene_;
  Options options_;
  ClassCosts costs_;
  std::vector<Place> hosts_;
  std::vector<std::uint32_t> host_of_;
  std::vector<std::vector<std::uint32_t>> together_;  // By group.
  std::optional<SharingIndex> index_;                 // Of the hosts' cells.
  std::vector<Logged> log_;
};

}  // namespace samepage::placer
