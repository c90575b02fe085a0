#include "placer/packing/problem.h"

#include <bit>
#include <map>
#include <set>

#include <fmt/format.h>

namespace samepage::placer {
namespace {

// Sums of many doubles differ in their last digits by the order of the items.
constexpr double kTolerance = 1e-9;

std::string bin_fault(const PackProblem& problem, std::size_t number,
                      const std::vector<const PackItem*>& items) {
  const PackBin& bin = problem.bins.at(number);
  std::vector<std::uint64_t> together(problem.words);
  std::set<std::uint32_t> groups;
  double pages = 0;
  Loads loads{};
  for (const PackItem* item : items) {
    for (std::size_t w = 0; w < problem.words; ++w) together[w] |= item->cells.at(w);
    for (std::size_t i = 0; i < kLoads; ++i) loads.at(i) += item->loads.at(i);
    pages += item->own;
    for (const std::uint32_t group : item->apart) {
      if (groups.insert(group).second) continue;
      return fmt::format("bin {} holds two items of group {}", number, group);
    }
    if (!item->allowed.empty() && !item->allowed.at(number)) {
      return fmt::format("bin {} holds an item that it must not hold", number);
    }
  }
  std::size_t cells = 0;
  for (const std::uint64_t word : together) cells += static_cast<std::size_t>(std::popcount(word));
  pages += problem.pages_of_cells.at(cells);
  if (pages > bin.capacity * (1 + kTolerance)) {
    return fmt::format("bin {} needs {} pages and has {}", number, pages, bin.capacity);
  }
  for (std::size_t i = 0; i < kLoads; ++i) {
    if (loads.at(i) <= bin.loads.at(i) * (1 + kTolerance)) continue;
    return fmt::format("bin {} carries load {} of {}", number, loads.at(i), bin.loads.at(i));
  }
  return {};
}

}  // namespace

std::vector<double> PackProblem::linear(std::size_t words, double unit) {
  std::vector<double> pages(words * 64 + 1);
  for (std::size_t cells = 0; cells < pages.size(); ++cells) {
    pages[cells] = static_cast<double>(cells) * unit;
  }
  return pages;
}

std::string find_fault(const PackProblem& problem, const Packing& packing) {
  if (packing.bin_of.size() != problem.items.size()) return "items are missing";
  std::map<std::size_t, std::vector<const PackItem*>> bins;
  std::size_t left_out = 0;
  for (std::size_t i = 0; i < problem.items.size(); ++i) {
    const std::uint32_t bin = packing.bin_of[i];
    if (bin == kNowhere) {
      ++left_out;
    } else if (bin >= problem.bins.size()) {
      return fmt::format("item {} is in bin {}, which is none", i, bin);
    } else {
      bins[bin].push_back(&problem.items[i]);
    }
  }
  if (left_out != packing.left_out) return "items that are left out were counted wrongly";
  if (bins.size() != packing.bins_used) return "bins that are used were counted wrongly";
  for (const auto& [number, items] : bins) {
    const std::string fault = bin_fault(problem, number, items);
    if (!fault.empty()) return fault;
  }
  return {};
}

}  // namespace samepage::placer
