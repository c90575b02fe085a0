#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "placer/class_model.h"
#include "placer/packing/problem.h"

namespace samepage::placer {

struct SceneHost {
  std::string name;
  PackBin bin;           ///< Pages; CPU cores, network and disk bytes a second.
  std::string hardware;  ///< Hosts of one class run a VM at one cost.
  bool is_up = true;
  std::string why_closed;  ///< Why nothing may arrive; empty when it may.
  bool leave = false;      ///< Its VMs are to leave: maintenance.
  double warmth = 0;       ///< From 0 to 1: how much of what VMs about to start read it has cached.
};

struct SceneVm {
  std::string id;
  std::string name;
  std::uint32_t host = kNowhere;
  PackItem demand;        ///< Of merged pages; a rule's groups and hosts are in it.
  double full_pages = 0;  ///< Of memory before anything is merged: what must fit on arrival.
  std::string domain;
  std::string why_fixed;              ///< Why it must not be moved; empty when it may be.
  std::uint32_t together = kNowhere;  ///< Group whose VMs stay on one host; kNowhere: none.
};

/// A fleet in numbers, of any size and from any source: what every decision is computed from. Hosts
/// and VMs go by their positions. Made from agents' reports (live_scene.h) or from a scenario file.
/// Where cells stand for a sample of the pages, numbers of pages are estimates, and error() says
/// how far they may be off.
///
/// Invariant (checked by find_scene_fault()): positions are in range, numbers finite and not
/// negative, bitmaps all of `words` words.
struct Scene {
  std::size_t words = 0;
  std::vector<double> pages_of_cells;
  double sampled = 1;       ///< Part of all pages that cells stand for; 1: every page, exactly.
  double cells_in_use = 0;  ///< Of a sample: cells that pages can fall into.
  std::vector<SceneHost> hosts;
  std::vector<SceneVm> vms;
  std::vector<ClassModel> class_models = {};  ///< For loads on hosts of other classes.

  using CellSpan = std::span<const std::uint64_t>;
  double pages(const PackItem& demand) const;  ///< Of one item alone, merged.
  double pages(CellSpan cells) const;
  double common(CellSpan a, CellSpan b) const;  ///< Pages that both have.

  /// Half of the 95 % interval around `common` pages that sets of `a` and `b` pages are estimated
  /// to have in common.
  double error(double a, double b, double common) const;

  std::uint32_t find_host(std::string_view name) const;  ///< kNowhere: none.
  std::uint32_t find_vm(std::string_view name_or_id) const;

  /// As a packing problem of the VMs that may move and hosts that may receive or hold them. Where
  /// hosts are of several classes a VM counts with the most that it uses on any, so that it fits on
  /// all; for a bound with the least.
  enum class Counted : std::uint8_t { kMost, kLeast };
  PackProblem problem(double headroom, Counted counted = Counted::kMost) const;
};

/// The first number that cannot be true, in one sentence; empty when there is none.
std::string find_scene_fault(const Scene& scene);

}  // namespace samepage::placer
