#include <algorithm>
#include <bit>
#include <numeric>
#include <set>
#include <vector>

#include "placer/packing/packer.h"

namespace samepage::placer {
namespace {

constexpr double kSlack = 1e-9;

struct OpenBin {
  std::vector<std::uint64_t> cells;
  double own = 0;
  Loads loads{};
  std::set<std::uint32_t> groups;
  bool used = false;
};

/// What an item would do to a bin.
struct Effect {
  bool fits = false;
  double size = 0;    ///< Of the item alone, in pages.
  double common = 0;  ///< Pages that the bin has already.
  double left = 0;    ///< Of the bin's capacity.
};

class OnePass {
 public:
  explicit OnePass(const PackProblem& problem) : problem_(problem), bins_(problem.bins.size()) {
    for (OpenBin& bin : bins_) bin.cells.resize(problem.words);
  }

  Packing run(Heuristic heuristic) {
    Packing packing;
    packing.bin_of.assign(problem_.items.size(), kNowhere);
    for (const std::size_t number : order(heuristic)) {
      const std::size_t bin = choose(heuristic, problem_.items[number]);
      if (bin == bins_.size()) {
        ++packing.left_out;
        continue;
      }
      packing.bins_used += bins_[bin].used ? 0U : 1U;
      put(problem_.items[number], bins_[bin]);
      packing.bin_of[number] = static_cast<std::uint32_t>(bin);
    }
    return packing;
  }

 private:
  std::vector<std::size_t> order(Heuristic heuristic) const {
    std::vector<std::size_t> order(problem_.items.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    if (heuristic == Heuristic::kFirstFit || heuristic == Heuristic::kBestFusion) return order;
    std::vector<double> size;
    for (const PackItem& item : problem_.items) size.push_back(pages(item.cells) + item.own);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return size[a] > size[b]; });
    return order;
  }

  double pages(const std::vector<std::uint64_t>& cells) const {
    std::size_t sum = 0;
    for (const std::uint64_t word : cells) sum += static_cast<std::size_t>(std::popcount(word));
    return problem_.pages_of_cells[sum];
  }

  Effect effect(const PackItem& item, std::size_t number) const {
    const OpenBin& bin = bins_[number];
    std::vector<std::uint64_t> together(problem_.words);
    for (std::size_t w = 0; w < problem_.words; ++w) together[w] = bin.cells[w] | item.cells[w];
    const double size = pages(item.cells);
    const double after = pages(together);
    Effect effect{.size = size + item.own,
                  .common = size + pages(bin.cells) - after,
                  .left = problem_.bins[number].capacity - after - bin.own - item.own};
    effect.fits = effect.left >= -kSlack * problem_.bins[number].capacity && may_take(item, number);
    return effect;
  }

  bool may_take(const PackItem& item, std::size_t number) const {
    if (!item.allowed.empty() && !item.allowed[number]) return false;
    for (std::size_t i = 0; i < kLoads; ++i) {
      const double load = bins_[number].loads.at(i) + item.loads.at(i);
      if (load > problem_.bins[number].loads.at(i) * (1 + kSlack) + kSlack) return false;
    }
    return std::none_of(item.apart.begin(), item.apart.end(),
                        [&](std::uint32_t group) { return bins_[number].groups.contains(group); });
  }

  std::size_t choose(Heuristic heuristic, const PackItem& item) const {
    std::size_t best = bins_.size();
    double best_score = 0;
    for (std::size_t number = 0; number < bins_.size(); ++number) {
      const Effect found = effect(item, number);
      if (!found.fits) continue;
      if (heuristic == Heuristic::kFirstFit) return number;
      const double value = score(heuristic, found);
      if (best == bins_.size() || value > best_score) {
        best = number;
        best_score = value;
      }
      if (!bins_[number].used) break;  // All further bins are as empty.
    }
    return best;
  }

  static double score(Heuristic heuristic, const Effect& effect) {
    if (heuristic == Heuristic::kBestFitBySize) return -effect.left;
    if (heuristic == Heuristic::kMemoryBuddies) return effect.common;
    return effect.size > 0 ? effect.common / effect.size : 0;
  }

  void put(const PackItem& item, OpenBin& bin) {
    for (std::size_t w = 0; w < problem_.words; ++w) bin.cells[w] |= item.cells[w];
    bin.own += item.own;
    for (std::size_t i = 0; i < kLoads; ++i) bin.loads.at(i) += item.loads.at(i);
    bin.groups.insert(item.apart.begin(), item.apart.end());
    bin.used = true;
  }

  const PackProblem& problem_;
  std::vector<OpenBin> bins_;
};

}  // namespace

Packing pack_by(Heuristic heuristic, const PackProblem& problem) {
  return OnePass(problem).run(heuristic);
}

}  // namespace samepage::placer
