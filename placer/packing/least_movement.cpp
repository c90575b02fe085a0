#include "placer/packing/least_movement.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "core/check.h"

namespace samepage::placer {
namespace {

/// Packed bins that may go by another number, and which numbers are theirs to share.
class Renumbering {
 public:
  Renumbering(const PackProblem& problem, const Packing& packing)
      : problem_(problem), number_(problem.bins.size(), kNowhere), taken_(problem.bins.size()) {
    for (std::size_t i = 0; i < problem.items.size(); ++i) {
      const std::uint32_t bin = packing.bin_of[i];
      if (bin == kNowhere || problem.items[i].allowed.empty() || taken_[bin]) continue;
      give(bin, bin);
    }
  }

  bool may_give(std::uint32_t bin, std::uint32_t number) const {
    const PackBin& a = problem_.bins[bin];
    const PackBin& b = problem_.bins[number];
    return number_[bin] == kNowhere && !taken_[number] && a.capacity == b.capacity &&
           a.loads == b.loads;
  }

  void give(std::uint32_t bin, std::uint32_t number) {
    number_[bin] = number;
    taken_[number] = true;
  }

  // Whoever is left: first those whose own number is free, then in order.
  void give_rest() {
    for (std::uint32_t bin = 0; bin < number_.size(); ++bin) {
      if (may_give(bin, bin)) give(bin, bin);
    }
    std::map<std::pair<double, Loads>, std::vector<std::uint32_t>> free;
    for (std::uint32_t number = 0; number < taken_.size(); ++number) {
      const PackBin& bin = problem_.bins[number];
      if (!taken_[number]) free[{bin.capacity, bin.loads}].push_back(number);
    }
    for (std::uint32_t bin = 0; bin < number_.size(); ++bin) {
      if (number_[bin] != kNowhere) continue;
      std::vector<std::uint32_t>& same =
          free[{problem_.bins[bin].capacity, problem_.bins[bin].loads}];
      CHECK(!same.empty());
      give(bin, same.back());
      same.pop_back();
    }
  }

  std::uint32_t operator[](std::uint32_t bin) const { return number_[bin]; }

 private:
  const PackProblem& problem_;
  std::vector<std::uint32_t> number_;
  std::vector<bool> taken_;
};

}  // namespace

std::size_t match_bins(const PackProblem& problem, const std::vector<std::uint32_t>& before,
                       Packing& packing) {
  CHECK(before.size() == packing.bin_of.size());
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::size_t> overlap;
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (before[i] != kNowhere && packing.bin_of[i] != kNowhere) {
      ++overlap[{packing.bin_of[i], before[i]}];
    }
  }
  std::vector<std::tuple<std::size_t, std::uint32_t, std::uint32_t>> pairs;
  for (const auto& [pair, items] : overlap) pairs.emplace_back(items, pair.first, pair.second);
  std::stable_sort(pairs.begin(), pairs.end(),
                   [](const auto& a, const auto& b) { return std::get<0>(a) > std::get<0>(b); });

  Renumbering renumbering(problem, packing);
  for (const auto& [items, bin, number] : pairs) {
    if (renumbering.may_give(bin, number)) renumbering.give(bin, number);
  }
  renumbering.give_rest();
  std::size_t moves = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (packing.bin_of[i] != kNowhere) packing.bin_of[i] = renumbering[packing.bin_of[i]];
    moves += packing.bin_of[i] != before[i] ? 1U : 0U;
  }
  return moves;
}

}  // namespace samepage::placer
