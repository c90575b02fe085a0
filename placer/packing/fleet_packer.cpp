#include "placer/packing/fleet_packer.h"

#include <algorithm>
#include <bit>
#include <condition_variable>
#include <mutex>
#include <numeric>
#include <optional>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "placer/packing/random.h"
#include "placer/packing/sharing_index.h"

namespace samepage::placer {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr double kSlack = 1e-9;
constexpr std::size_t kNeighbourhoodItems = 140;
constexpr std::size_t kNeighbourhoodBinsMax = 24;
constexpr std::size_t kRoundsPerNeighbourhood = 3'000;
constexpr std::size_t kChunkItems = 400;
constexpr std::size_t kRoundsPerChunk = 20'000;
constexpr std::uint32_t kNone = UINT32_MAX;

struct FleetBin {
  std::vector<std::uint64_t> cells;
  std::size_t count = 0;
  double own = 0;
  Loads loads{};
  std::vector<std::uint32_t> items;
  bool busy = false;  ///< Being packed anew by a thread.
};

std::size_t count_cells(std::span<const std::uint64_t> cells) {
  std::size_t sum = 0;
  for (const std::uint64_t word : cells) sum += static_cast<std::size_t>(std::popcount(word));
  return sum;
}

/// A few bins as a problem of their own.
struct Neighbourhood {
  std::vector<std::uint32_t> bins;  ///< Numbers in the fleet.
  std::vector<std::uint32_t> items;
  PackProblem problem;
  Packing now;
};

class FleetSearch {
 public:
  FleetSearch(const PackProblem& problem, const PackOptions& options)
      : problem_(problem),
        options_(options),
        ends_at_(SteadyClock::now() + options.budget),
        index_(problem.words, problem.bins.size()),
        random_(options.seed),
        bins_(problem.bins.size()),
        bin_of_(problem.items.size(), kNowhere) {
    for (FleetBin& bin : bins_) bin.cells.resize(problem.words);
    for (const PackItem& item : problem.items) cells_of_.push_back(count_cells(item.cells));
  }

  Packing run(const Packing* start) {
    if (start != nullptr) {
      load(*start);
    } else {
      construct();
    }
    {
      std::vector<std::jthread> others;
      for (unsigned i = 1; i < options_.threads; ++i) others.emplace_back([this] { improve(); });
      improve();
    }
    Packing packing{.bin_of = bin_of_, .bins_used = used(), .left_out = 0, .rounds = rounds_};
    packing.left_out =
        static_cast<std::size_t>(std::count(bin_of_.begin(), bin_of_.end(), kNowhere));
    return packing;
  }

 private:
  std::size_t used() const {
    return static_cast<std::size_t>(std::count_if(
        bins_.begin(), bins_.end(), [](const FleetBin& bin) { return !bin.items.empty(); }));
  }

  void load(const Packing& start) {
    for (std::uint32_t i = 0; i < start.bin_of.size(); ++i) {
      if (start.bin_of[i] != kNowhere) add(i, start.bin_of[i]);
    }
    for (std::uint32_t bin = 0; bin < bins_.size(); ++bin) index_.set(bin, bins_[bin].cells);
  }

  void add(std::uint32_t number, std::uint32_t to) {
    const PackItem& item = problem_.items[number];
    FleetBin& bin = bins_[to];
    for (std::size_t w = 0; w < problem_.words; ++w) bin.cells[w] |= item.cells[w];
    bin.count = count_cells(bin.cells);
    bin.own += item.own;
    for (std::size_t i = 0; i < kLoads; ++i) bin.loads.at(i) += item.loads.at(i);
    bin.items.push_back(number);
    bin_of_[number] = to;
  }

  void clear(std::uint32_t number) {
    FleetBin& bin = bins_[number];
    std::fill(bin.cells.begin(), bin.cells.end(), 0);
    bin.count = 0;
    bin.own = 0;
    bin.loads = {};
    bin.items.clear();
  }

  // Chunks of items that have much in common are packed by themselves, into bins of their own; what
  // that leaves half empty is for improve().
  void construct() {
    std::vector<std::uint32_t> left = by_size();
    std::vector<std::uint32_t> free(bins_.size());
    std::iota(free.begin(), free.end(), 0U);
    std::stable_sort(free.begin(), free.end(), [&](std::uint32_t a, std::uint32_t b) {
      return problem_.bins[a].capacity < problem_.bins[b].capacity;
    });
    std::vector<Neighbourhood> chunks;
    while (!left.empty()) {
      SharingIndex items(problem_.words, left.size());
      for (std::size_t i = 0; i < left.size(); ++i) {
        items.set(i, problem_.items[left[i]].cells);
      }
      std::vector<bool> taken(left.size());
      const std::size_t half = left.size() / 2;
      std::size_t gone = 0;
      while (gone < left.size() && (gone <= half || left.size() < 4 * kChunkItems)) {
        chunks.push_back(take_chunk(left, items, taken));
        gone += chunks.back().items.size();
      }
      std::vector<std::uint32_t> rest;
      for (std::size_t i = 0; i < left.size(); ++i) {
        if (!taken[i]) rest.push_back(left[i]);
      }
      left = std::move(rest);
    }
    pack_chunks(chunks, free);
    place_rest();
  }

  std::vector<std::uint32_t> by_size() const {
    std::vector<std::uint32_t> order(problem_.items.size());
    std::iota(order.begin(), order.end(), 0U);
    std::vector<double> size;
    for (std::size_t i = 0; i < order.size(); ++i) {
      size.push_back(problem_.items[i].own + problem_.pages_of_cells[cells_of_[i]]);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](std::uint32_t a, std::uint32_t b) { return size[a] > size[b]; });
    return order;
  }

  // The largest item left, and those of whose cells it has the largest part.
  Neighbourhood take_chunk(const std::vector<std::uint32_t>& left, const SharingIndex& items,
                           std::vector<bool>& taken) {
    const auto first = static_cast<std::size_t>(
        std::distance(taken.begin(), std::find(taken.begin(), taken.end(), false)));
    items.count_common(problem_.items[left[first]].cells, common_);
    std::vector<std::pair<double, std::size_t>> alike;
    for (std::size_t i = first; i < left.size(); ++i) {
      if (taken[i]) continue;
      const auto cells = static_cast<double>(cells_of_[left[i]] + 1);
      alike.emplace_back(-(common_[i] / cells + common_[i] * 1e-6), i);
    }
    const std::size_t size = alike.size() < 2 * kChunkItems ? alike.size() : kChunkItems;
    std::nth_element(alike.begin(), alike.begin() + static_cast<std::ptrdiff_t>(size - 1),
                     alike.end());
    Neighbourhood chunk;
    for (std::size_t i = 0; i < size; ++i) {
      chunk.items.push_back(left[alike[i].second]);
      taken[alike[i].second] = true;
    }
    return chunk;
  }

  void pack_chunks(std::vector<Neighbourhood>& chunks, std::vector<std::uint32_t>& free) {
    std::size_t next = 0;
    const auto share = (ends_at_ - SteadyClock::now()) / 2 * std::max(1U, options_.threads) /
                       std::max<std::size_t>(1, chunks.size());
    const auto work = [&] {
      std::unique_lock lock(mutex_);
      while (next < chunks.size() && !free.empty()) {
        Neighbourhood& chunk = chunks[next++];
        const std::uint64_t seed = random_.next();
        take_bins(chunk, free);
        lock.unlock();
        describe(chunk);
        const PackOptions options{
            .budget = std::chrono::duration_cast<std::chrono::microseconds>(share),
            .rounds_max = kRoundsPerChunk,
            .seed = seed};
        const Packing packed = pack(chunk.problem, options);
        lock.lock();
        settle(chunk, packed);
        for (const std::uint32_t bin : chunk.bins) {
          if (bins_[bin].items.empty()) free.push_back(bin);
        }
      }
    };
    std::vector<std::jthread> others;
    for (unsigned i = 1; i < options_.threads; ++i) others.emplace_back(work);
    work();
  }

  // As many of the largest free bins as would hold the chunk if its items shared nothing, and some.
  void take_bins(Neighbourhood& chunk, std::vector<std::uint32_t>& free) const {
    double pages = 0;
    for (const std::uint32_t item : chunk.items) {
      pages += problem_.items[item].own + problem_.pages_of_cells[cells_of_[item]];
    }
    constexpr double kSpare = 1.3;
    constexpr std::size_t kBinsMin = 2;
    while (!free.empty() && (pages > 0 || chunk.bins.size() < kBinsMin)) {
      pages -= problem_.bins[free.back()].capacity / kSpare;
      chunk.bins.push_back(free.back());
      free.pop_back();
    }
  }

  void settle(const Neighbourhood& chunk, const Packing& packed) {
    for (std::size_t i = 0; i < chunk.items.size(); ++i) {
      if (packed.bin_of[i] != kNowhere) add(chunk.items[i], chunk.bins[packed.bin_of[i]]);
    }
    for (const std::uint32_t bin : chunk.bins) index_.set(bin, bins_[bin].cells);
  }

  void place_rest() {
    for (const std::uint32_t item : by_size()) {
      if (bin_of_[item] != kNowhere) continue;
      index_.count_common(problem_.items[item].cells, common_);
      const std::uint32_t bin = best_bin(item, common_);
      if (bin == kNone) continue;
      add(item, bin);
      index_.set(bin, bins_[bin].cells);
    }
  }

  /// The bin that grows least for its size; an empty one only when no other takes the item.
  std::uint32_t best_bin(std::uint32_t item, const std::vector<std::uint16_t>& common) const {
    std::uint32_t best = kNone;
    std::uint32_t empty = kNone;
    double best_score = 0;
    for (std::uint32_t bin = 0; bin < bins_.size(); ++bin) {
      if (bins_[bin].items.empty()) {
        const bool larger =
            empty == kNone || problem_.bins[bin].capacity > problem_.bins[empty].capacity;
        if (larger && takes(bin, item, 0)) empty = bin;
        continue;
      }
      if (!takes(bin, item, common[bin])) continue;
      const double left = problem_.bins[bin].capacity - pages_with(bin, item, common[bin]);
      const double score = static_cast<double>(common[bin]) - left / problem_.bins[bin].capacity;
      if (best != kNone && score <= best_score) continue;
      best = bin;
      best_score = score;
    }
    return best != kNone ? best : empty;
  }

  double pages_with(std::uint32_t bin, std::uint32_t item, std::size_t common) const {
    return problem_.pages_of_cells[bins_[bin].count + cells_of_[item] - common] + bins_[bin].own +
           problem_.items[item].own;
  }

  bool takes(std::uint32_t bin, std::uint32_t number, std::size_t common) const {
    const PackItem& item = problem_.items[number];
    if (pages_with(bin, number, common) > problem_.bins[bin].capacity) return false;
    if (!item.allowed.empty() && !item.allowed[bin]) return false;
    for (std::size_t i = 0; i < kLoads; ++i) {
      if (bins_[bin].loads.at(i) + item.loads.at(i) > problem_.bins[bin].loads.at(i) + kSlack) {
        return false;
      }
    }
    if (item.apart.empty()) return true;
    return std::none_of(bins_[bin].items.begin(), bins_[bin].items.end(), [&](std::uint32_t other) {
      const std::vector<std::uint32_t>& groups = problem_.items[other].apart;
      return std::any_of(groups.begin(), groups.end(), [&](std::uint32_t group) {
        return std::find(item.apart.begin(), item.apart.end(), group) != item.apart.end();
      });
    });
  }

  // Each thread takes bins nobody else works on, packs them without the lock, and puts them back.
  void improve() {
    std::unique_lock lock(mutex_);
    while (SteadyClock::now() < ends_at_ && rounds_ < options_.rounds_max &&
           used() > options_.bins_enough) {
      std::optional<Neighbourhood> chosen = choose();
      if (!chosen) return;
      ++rounds_;
      const std::uint64_t seed = random_.next();
      lock.unlock();
      fill(*chosen);
      const Packing packed =
          pack(chosen->problem,
               {.budget = time_left(), .rounds_max = kRoundsPerNeighbourhood, .seed = seed},
               &chosen->now);
      lock.lock();
      put_back(*chosen, packed);
    }
  }

  std::chrono::microseconds time_left() const {
    return std::max(
        std::chrono::microseconds(1),
        std::chrono::duration_cast<std::chrono::microseconds>(ends_at_ - SteadyClock::now()));
  }

  /// A bin that would be missed little, and those that have most in common with it.
  std::optional<Neighbourhood> choose() {
    const std::uint32_t first = emptiest_of_some();
    if (first == kNone) return std::nullopt;
    index_.count_common(bins_[first].cells, common_);
    std::vector<std::pair<double, std::uint32_t>> others;
    for (std::uint32_t bin = 0; bin < bins_.size(); ++bin) {
      if (bin == first || bins_[bin].busy || bins_[bin].items.empty()) continue;
      // Luck of the size of a tenth of what is common, for other neighbourhoods the next time.
      const double luck = 0.9 + 0.2 * random_.unit();
      const double free = 1 - used_part(bin);
      others.emplace_back((common_[bin] + 1) * luck * (1 + 4 * free), bin);
    }
    const std::size_t most = std::min(others.size(), kNeighbourhoodBinsMax);
    std::partial_sort(others.begin(), others.begin() + static_cast<std::ptrdiff_t>(most),
                      others.end(), std::greater<>());
    Neighbourhood found;
    std::size_t items = 0;
    const auto take = [&](std::uint32_t bin) {
      found.bins.push_back(bin);
      items += bins_[bin].items.size();
      bins_[bin].busy = true;
    };
    take(first);
    for (std::size_t i = 0; i < most && items < kNeighbourhoodItems; ++i) take(others[i].second);
    if (found.bins.size() > 1) return found;
    bins_[first].busy = false;
    return std::nullopt;
  }

  double used_part(std::uint32_t bin) const {
    const double pages = problem_.pages_of_cells[bins_[bin].count] + bins_[bin].own;
    return pages / std::max(1.0, problem_.bins[bin].capacity);
  }

  std::uint32_t emptiest_of_some() {
    constexpr int kTries = 12;
    std::uint32_t best = kNone;
    for (int i = 0; i < kTries; ++i) {
      const std::uint32_t bin = random_.below(bins_.size());
      if (bins_[bin].busy || bins_[bin].items.empty()) continue;
      if (best == kNone || used_part(bin) < used_part(best)) best = bin;
    }
    for (std::uint32_t bin = 0; best == kNone && bin < bins_.size(); ++bin) {
      if (!bins_[bin].busy && !bins_[bin].items.empty()) best = bin;
    }
    return best;
  }

  // Busy bins are this thread's alone, so this needs no lock.
  void fill(Neighbourhood& chosen) const {
    for (std::uint32_t i = 0; i < chosen.bins.size(); ++i) {
      for (const std::uint32_t item : bins_[chosen.bins[i]].items) {
        chosen.items.push_back(item);
        chosen.now.bin_of.push_back(i);
      }
    }
    chosen.now.bins_used = chosen.bins.size();
    describe(chosen);
  }

  void describe(Neighbourhood& chosen) const {
    chosen.problem.words = problem_.words;
    chosen.problem.pages_of_cells = problem_.pages_of_cells;
    for (const std::uint32_t bin : chosen.bins) chosen.problem.bins.push_back(problem_.bins[bin]);
    for (const std::uint32_t item : chosen.items) {
      chosen.problem.items.push_back(problem_.items[item]);
      std::vector<bool>& allowed = chosen.problem.items.back().allowed;
      if (allowed.empty()) continue;
      allowed.clear();
      for (const std::uint32_t bin : chosen.bins) {
        allowed.push_back(problem_.items[item].allowed[bin]);
      }
    }
  }

  void put_back(const Neighbourhood& chosen, const Packing& packed) {
    const bool is_better = packed.left_out == 0 && packed.bins_used < chosen.now.bins_used;
    for (const std::uint32_t bin : chosen.bins) bins_[bin].busy = false;
    if (!is_better) return;
    for (const std::uint32_t bin : chosen.bins) clear(bin);
    for (std::size_t i = 0; i < chosen.items.size(); ++i) {
      add(chosen.items[i], chosen.bins[packed.bin_of[i]]);
    }
    for (const std::uint32_t bin : chosen.bins) index_.set(bin, bins_[bin].cells);
  }

  const PackProblem& problem_;
  const PackOptions& options_;
  SteadyClock::time_point ends_at_;
  std::mutex mutex_;
  // Under mutex_ while improve() runs; a busy bin belongs to one thread.
  SharingIndex index_;
  Random random_;
  std::vector<FleetBin> bins_;
  std::vector<std::uint32_t> bin_of_;
  std::vector<std::uint16_t> common_;
  std::size_t rounds_ = 0;
  std::vector<std::size_t> cells_of_;
};

}  // namespace

Packing pack_fleet(const PackProblem& problem, const PackOptions& options, const Packing* start) {
  if (problem.items.size() <= kChunkItems) return pack(problem, options, start);
  return FleetSearch(problem, options).run(start);
}

}  // namespace samepage::placer
