// A packing with k bins is turned into one with k - 1: a bin is dropped, and its items must find
// room in the others. The search is the ejection pool of Nagata and Bräysy (2009), made for
// vehicle routes, with unions for sums:
//
//   take an item from the pool; where it fits, it goes to the bin that grows least by it;
//   where it fits nowhere, its penalty rises by one, and it goes where the items (one, or two)
//   that must leave for it have the smallest sum of penalties; those go to the pool;
//   then a few random moves and swaps that keep every bin valid shake the rest up.
//
// Penalties are what makes it converge: an item that was hard to place once is ejected by easy
// ones only, so that the pool soon holds items that fit in many places. Nothing is ever evaluated
// as a sum over pages: what a bin grows by an item, and what leaves with one or two of its items,
// are AND and popcount on the bitmaps that BinState keeps.
//
// Against a genetic algorithm on groups, the best published for this problem, one round costs well
// below a microsecond instead of a generation, and one packing is kept instead of a population. A
// local search on the sum of squares of the bins' sizes was tried in its place: it stops at the
// packing in which every bin is nearly full and one is nearly empty, which is the hard part.
//
// Random steps per round begin few and grow while nothing improves: few are best in the first
// millisecond, many find the last bin.

#include "placer/packing/packer.h"

#include <atomic>
#include <numeric>
#include <optional>
#include <thread>
#include <utility>

#include "core/check.h"
#include "placer/packing/bin_state.h"
#include "placer/packing/random.h"

namespace samepage::placer {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::uint32_t kNone = UINT32_MAX;
constexpr double kSlack = 1e-9;
constexpr std::size_t kRoundsBetweenLooks = 16;  // At the clock.
constexpr std::size_t kShakesMin = 5;
constexpr std::size_t kShakesMax = 100;
constexpr std::size_t kRoundsPerShake = 40;

template <std::size_t kWords>
class Search {
 public:
  Search(const PackProblem& problem, const PackOptions& options, SteadyClock::time_point ends_at,
         std::uint64_t seed)
      : problem_(problem),
        options_(options),
        ends_at_(ends_at),
        random_(seed),
        bins_(problem.bins.size()),
        bin_of_(problem.items.size(), kNowhere),
        penalty_(problem.items.size(), 1) {
    for (const PackItem& item : problem.items) {
      PackedItem<kWords> packed{.cells = {}, .own = item.own, .item = &item};
      std::copy(item.cells.begin(), item.cells.end(), packed.cells.begin());
      items_.push_back(packed);
      has_rules_ =
          has_rules_ || !item.apart.empty() || !item.allowed.empty() ||
          std::any_of(item.loads.begin(), item.loads.end(), [](double l) { return l > 0; });
    }
  }

  Packing run(const Packing* start, std::atomic<std::size_t>& best_of_all) {
    if (start != nullptr) {
      load(*start);
    } else {
      construct();
    }
    Packing best = save();
    while (!is_over() && wants_better(best, best_of_all)) {
      if (best.left_out == 0) {
        drop_bin();
      }
      const bool improved = place_pool(best_of_all, best);
      if (improved) {
        best = save();
        note(best, best_of_all);
      }
      load(best);
    }
    best.rounds = rounds_;
    return best;
  }

 private:
  using Bin = BinState<kWords>;
  using Item = PackedItem<kWords>;

  bool is_over() const { return rounds_ >= options_.rounds_max || SteadyClock::now() >= ends_at_; }

  // A thread gives up what another has found already.
  bool wants_better(const Packing& best, const std::atomic<std::size_t>& best_of_all) const {
    if (best.left_out > 0) return true;
    return best.bins_used > options_.bins_enough && best.bins_used > 1 &&
           best_of_all.load(std::memory_order_relaxed) > options_.bins_enough;
  }

  static void note(const Packing& best, std::atomic<std::size_t>& best_of_all) {
    if (best.left_out > 0) return;
    std::size_t known = best_of_all.load(std::memory_order_relaxed);
    while (best.bins_used < known && !best_of_all.compare_exchange_weak(known, best.bins_used)) {
    }
  }

  double pages(const Bin& bin) const { return problem_.pages_of_cells[bin.cells] + bin.own; }
  double capacity(std::size_t bin) const { return problem_.bins[bin].capacity * (1 + kSlack); }

  bool fits(std::size_t bin, const Item& item, std::size_t growth) const {
    return problem_.pages_of_cells[bins_[bin].cells + growth] + bins_[bin].own + item.own <=
           capacity(bin);
  }

  /// Loads, groups and rules; memory aside. `gone` are items of the bin that would leave.
  bool may_take(std::size_t bin, const Item& item, std::uint32_t gone = kNone,
                std::uint32_t also_gone = kNone) const {
    if (!has_rules_) return true;
    const PackItem& added = *item.item;
    if (!added.allowed.empty() && !added.allowed[bin]) return false;
    for (std::size_t i = 0; i < kLoads; ++i) {
      double load = bins_[bin].loads.at(i) + added.loads.at(i);
      if (gone != kNone) load -= items_[gone].item->loads.at(i);
      if (also_gone != kNone) load -= items_[also_gone].item->loads.at(i);
      if (load > problem_.bins[bin].loads.at(i) * (1 + kSlack) + kSlack) return false;
    }
    if (added.apart.empty()) return true;
    for (const std::uint32_t other : bins_[bin].items) {
      if (other == gone || other == also_gone) continue;
      for (const std::uint32_t group : items_[other].item->apart) {
        if (std::find(added.apart.begin(), added.apart.end(), group) != added.apart.end()) {
          return false;
        }
      }
    }
    return true;
  }

  void put(std::uint32_t item, std::size_t bin) {
    bins_[bin].add(items_[item], item);
    bin_of_[item] = static_cast<std::uint32_t>(bin);
  }
  void take(std::uint32_t item) {
    bins_[bin_of_[item]].remove(item, items_);
    bin_of_[item] = kNowhere;
  }
  void eject(std::uint32_t item) {
    take(item);
    pool_.push_back(item);
  }

  // Bin by bin, the largest first: the largest item left, then whatever brings most that is there
  // already for each page that it adds.
  void construct() {
    std::vector<std::uint32_t> left(items_.size());
    std::iota(left.begin(), left.end(), 0U);
    std::vector<double> size;
    for (const Item& item : items_) size.push_back(size_of(item));
    std::stable_sort(left.begin(), left.end(),
                     [&](std::uint32_t a, std::uint32_t b) { return size[a] > size[b]; });
    std::vector<std::uint32_t> order(bins_.size());
    std::iota(order.begin(), order.end(), 0U);
    std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
      return problem_.bins[a].capacity > problem_.bins[b].capacity;
    });
    for (const std::uint32_t bin : order) {
      if (left.empty()) break;
      fill(bin, left, size);
    }
    pool_ = std::move(left);
    list_open();
  }

  double size_of(const Item& item) const {
    return problem_.pages_of_cells[count_common(item.cells, item.cells)] + item.own;
  }

  void fill(std::uint32_t bin, std::vector<std::uint32_t>& left, const std::vector<double>& size) {
    constexpr double kGrowthWeight = 1.5;
    for (;;) {
      std::size_t best = left.size();
      double best_score = 0;
      for (std::size_t i = 0; i < left.size(); ++i) {
        const Item& item = items_[left[i]];
        const std::size_t growth = count_new(item.cells, bins_[bin].once);
        if (!fits(bin, item, growth) || !may_take(bin, item)) continue;
        const double added = pages_added(bins_[bin], growth) + item.own;
        const double score = size[left[i]] - kGrowthWeight * added;
        if (best != left.size() && score <= best_score) continue;
        best = i;
        best_score = score;
        if (bins_[bin].items.empty()) break;  // The largest that fits.
      }
      if (best == left.size()) return;
      put(left[best], bin);
      left.erase(left.begin() + static_cast<std::ptrdiff_t>(best));
    }
  }

  double pages_added(const Bin& bin, std::size_t growth) const {
    return problem_.pages_of_cells[bin.cells + growth] - problem_.pages_of_cells[bin.cells];
  }

  void load(const Packing& packing) {
    for (Bin& bin : bins_) bin.items.clear();
    pool_.clear();
    bin_of_ = packing.bin_of;
    for (std::uint32_t i = 0; i < bin_of_.size(); ++i) {
      if (bin_of_[i] == kNowhere) {
        pool_.push_back(i);
      } else {
        bins_[bin_of_[i]].items.push_back(i);
      }
    }
    for (Bin& bin : bins_) bin.recount(items_);
    list_open();
  }

  Packing save() const {
    return {.bin_of = bin_of_,
            .bins_used = static_cast<std::size_t>(std::count_if(
                bins_.begin(), bins_.end(), [](const Bin& bin) { return !bin.items.empty(); })),
            .left_out = pool_.size(),
            .rounds = rounds_};
  }

  // Where items are left out every bin is open; else the ones in use.
  void list_open() {
    open_.clear();
    for (std::uint32_t bin = 0; bin < bins_.size(); ++bin) {
      if (!pool_.empty() || !bins_[bin].items.empty()) open_.push_back(bin);
    }
  }

  // The bin whose items were the easiest to place so far, with some luck.
  void drop_bin() {
    constexpr double kLuck = 0.5;
    std::size_t dropped = 0;
    double least = 0;
    for (std::size_t i = 0; i < open_.size(); ++i) {
      double weight = 0;
      for (const std::uint32_t item : bins_[open_[i]].items) weight += penalty_[item];
      weight *= 1 + kLuck * random_.unit();
      if (i > 0 && weight >= least) continue;
      least = weight;
      dropped = i;
    }
    Bin& bin = bins_[open_[dropped]];
    for (const std::uint32_t item : bin.items) bin_of_[item] = kNowhere;
    pool_ = std::move(bin.items);
    bin = Bin();
    open_.erase(open_.begin() + static_cast<std::ptrdiff_t>(dropped));
  }

  // True when the pool is empty, or smaller than what was left out before.
  bool place_pool(const std::atomic<std::size_t>& best_of_all, const Packing& best) {
    const std::size_t rounds_before = rounds_;
    while (!pool_.empty()) {
      if (best.left_out > 0 && pool_.size() < best.left_out) return true;
      ++rounds_;
      if (rounds_ >= options_.rounds_max) return false;
      if (rounds_ % kRoundsBetweenLooks == 0) {
        if (is_over() || !wants_better(best, best_of_all)) return false;
      }
      place_one();
      const std::size_t shakes = kShakesMin + (rounds_ - rounds_before) / kRoundsPerShake;
      shake(std::min(shakes, kShakesMax));
    }
    return true;
  }

  void place_one() {
    const std::uint32_t chosen = random_.below(pool_.size());
    const std::uint32_t item = pool_[chosen];
    pool_[chosen] = pool_.back();
    pool_.pop_back();
    const std::uint32_t bin = tightest_bin(items_[item]);
    if (bin != kNone) {
      put(item, bin);
      return;
    }
    penalty_[item] += 1;
    Ejection ejection;
    for (const std::uint32_t candidate : open_) consider(candidate, item, ejection);
    if (ejection.bin == kNone) {
      force(item);
      return;
    }
    eject(ejection.first);
    if (ejection.second != kNone) eject(ejection.second);
    put(item, ejection.bin);
  }

  std::uint32_t tightest_bin(const Item& item) {
    constexpr std::size_t kTies = 256;
    std::uint32_t best = kNone;
    std::size_t least = SIZE_MAX;
    for (const std::uint32_t bin : open_) {
      const std::size_t growth = count_new(item.cells, bins_[bin].once);
      if (!fits(bin, item, growth) || !may_take(bin, item)) continue;
      const std::size_t score = growth * kTies + random_.below(kTies);
      if (score >= least) continue;
      least = score;
      best = bin;
    }
    return best;
  }

  struct Ejection {
    std::uint32_t bin = kNone;
    std::uint32_t first = kNone;
    std::uint32_t second = kNone;
    double penalty = 1e300;
  };

  /// What would leave a bin, were an item put in.
  struct Leaving {
    std::uint32_t bin = kNone;
    Cells<kWords> with_one;  ///< Cells that go when the one item goes that has them.
    Cells<kWords> with_two;  ///< Cells that go when both go.
    std::size_t cells = 0;   ///< Of the bin with the new item.
    double room = 0;         ///< For cells, in pages.
  };

  void consider(std::uint32_t number, std::uint32_t item_number, Ejection& best) {
    const Bin& bin = bins_[number];
    const Item& item = items_[item_number];
    if (!item.item->allowed.empty() && !item.item->allowed[number]) return;
    leaving_.bin = number;
    for (std::size_t w = 0; w < kWords; ++w) {
      leaving_.with_one[w] = bin.once[w] & ~bin.twice[w] & ~item.cells[w];
      leaving_.with_two[w] = bin.twice[w] & ~bin.thrice[w] & ~item.cells[w];
    }
    leaving_.cells = bin.cells + count_new(item.cells, bin.once);
    leaving_.room = capacity(number) - bin.own - item.own;
    consider_singles(item, best);
    consider_pairs(item, best);
  }

  bool makes_room(std::size_t freed, double own) const {
    return problem_.pages_of_cells[leaving_.cells - freed] <= leaving_.room + own;
  }

  void consider_singles(const Item& item, Ejection& best) {
    freed_.clear();
    for (const std::uint32_t out : bins_[leaving_.bin].items) {
      freed_.push_back(count_common(items_[out].cells, leaving_.with_one));
      if (!makes_room(freed_.back(), items_[out].own)) continue;
      const double penalty = penalty_[out] + kTie * random_.unit();
      if (penalty >= best.penalty || !may_take(leaving_.bin, item, out)) continue;
      best = {.bin = leaving_.bin, .first = out, .second = kNone, .penalty = penalty};
    }
  }

  // What a pair frees together is bounded by what each has of the cells held twice, so most pairs
  // are dismissed by an addition.
  void consider_pairs(const Item& item, Ejection& best) {
    const std::vector<std::uint32_t>& items = bins_[leaving_.bin].items;
    shared_.clear();
    for (const std::uint32_t out : items) {
      shared_.push_back(count_common(items_[out].cells, leaving_.with_two));
    }
    for (std::size_t a = 0; a < items.size(); ++a) {
      const std::uint32_t first = items[a];
      if (penalty_[first] >= best.penalty) continue;
      for (std::size_t b = a + 1; b < items.size(); ++b) {
        const std::uint32_t second = items[b];
        const double penalty = penalty_[first] + penalty_[second];
        if (penalty >= best.penalty) continue;
        const double own = items_[first].own + items_[second].own;
        const std::size_t apart = freed_[a] + freed_[b];
        if (!makes_room(apart + std::min(shared_[a], shared_[b]), own)) continue;
        const std::size_t both =
            count_common(items_[first].cells, items_[second].cells, leaving_.with_two);
        if (!makes_room(apart + both, own)) continue;
        if (!may_take(leaving_.bin, item, first, second)) continue;
        best = {.bin = leaving_.bin, .first = first, .second = second, .penalty = penalty};
      }
    }
  }

  // No one or two items make room: as many as it takes leave a bin chosen by chance.
  void force(std::uint32_t item) {
    const std::uint32_t bin = open_.empty() ? kNone : open_[random_.below(open_.size())];
    if (bin == kNone || !could_ever_hold(bin, items_[item])) {
      pool_.push_back(item);
      return;
    }
    while (!bins_[bin].items.empty() &&
           !(fits(bin, items_[item], count_new(items_[item].cells, bins_[bin].once)) &&
             may_take(bin, items_[item]))) {
      eject(bins_[bin].items[random_.below(bins_[bin].items.size())]);
    }
    put(item, bin);
  }

  bool could_ever_hold(std::uint32_t bin, const Item& item) const {
    const PackItem& added = *item.item;
    if (!added.allowed.empty() && !added.allowed[bin]) return false;
    for (std::size_t i = 0; i < kLoads; ++i) {
      if (added.loads.at(i) > problem_.bins[bin].loads.at(i) * (1 + kSlack) + kSlack) return false;
    }
    return size_of(item) <= capacity(bin);
  }

  void shake(std::size_t steps) {
    if (open_.size() < 2) return;
    for (std::size_t step = 0; step < steps; ++step) {
      const std::uint32_t item = random_.below(items_.size());
      const std::uint32_t from = bin_of_[item];
      const std::uint32_t to = open_[random_.below(open_.size())];
      if (from == kNowhere || from == to) continue;
      const std::size_t growth = count_new(items_[item].cells, bins_[to].once);
      if (fits(to, items_[item], growth) && may_take(to, items_[item])) {
        take(item);
        put(item, to);
      } else if (!bins_[to].items.empty()) {
        try_swap(item, bins_[to].items[random_.below(bins_[to].items.size())]);
      }
    }
  }

  // Keeps a swap that makes the two bins smaller, or larger by a little.
  void try_swap(std::uint32_t a, std::uint32_t b) {
    constexpr std::uint32_t kWorse = 3;
    const std::uint32_t bin_a = bin_of_[a];
    const std::uint32_t bin_b = bin_of_[b];
    const double pages_a = pages_swapped(bins_[bin_a], items_[a], items_[b]);
    const double pages_b = pages_swapped(bins_[bin_b], items_[b], items_[a]);
    if (pages_a > capacity(bin_a) || pages_b > capacity(bin_b)) return;
    const double now = pages(bins_[bin_a]) + pages(bins_[bin_b]);
    const double worse = problem_.pages_of_cells[1] * random_.below(kWorse);
    if (pages_a + pages_b > now + worse) return;
    if (!may_take(bin_a, items_[b], a) || !may_take(bin_b, items_[a], b)) return;
    take(a);
    take(b);
    put(a, bin_b);
    put(b, bin_a);
  }

  double pages_swapped(const Bin& bin, const Item& out, const Item& in) const {
    const std::size_t cells = count_exchanged(bin.once, bin.twice, out.cells, in.cells);
    return problem_.pages_of_cells[cells] + bin.own - out.own + in.own;
  }

  static constexpr double kTie = 1e-2;

  const PackProblem& problem_;
  const PackOptions& options_;
  SteadyClock::time_point ends_at_;
  Random random_;
  bool has_rules_ = false;
  std::vector<Item> items_;
  std::vector<Bin> bins_;
  std::vector<std::uint32_t> open_;
  std::vector<std::uint32_t> bin_of_;
  std::vector<double> penalty_;
  std::vector<std::uint32_t> pool_;
  Leaving leaving_;
  std::vector<std::size_t> freed_;  // By item of the bin that is considered.
  std::vector<std::size_t> shared_;
  std::size_t rounds_ = 0;
};

bool is_better(const Packing& a, const Packing& b) {
  if (a.left_out != b.left_out) return a.left_out < b.left_out;
  return a.bins_used < b.bins_used;
}

template <std::size_t kWords>
Packing search(const PackProblem& problem, const PackOptions& options, const Packing* start) {
  const auto ends_at = SteadyClock::now() + options.budget;
  std::atomic<std::size_t> best_of_all = SIZE_MAX;
  std::vector<Packing> found(std::max(1U, options.threads));
  const auto run = [&](std::size_t i) {
    Search<kWords> one(problem, options, ends_at, options.seed * found.size() + i);
    found[i] = one.run(start, best_of_all);
  };
  {
    std::vector<std::jthread> others;
    for (std::size_t i = 1; i < found.size(); ++i) others.emplace_back(run, i);
    run(0);
  }
  std::size_t best = 0;
  for (std::size_t i = 1; i < found.size(); ++i) {
    if (is_better(found[i], found[best])) best = i;
  }
  return std::move(found[best]);
}

}  // namespace

Packing pack(const PackProblem& problem, const PackOptions& options, const Packing* start) {
  if (problem.items.empty()) return {};
  if (problem.words <= 1) return search<1>(problem, options, start);
  if (problem.words <= 2) return search<2>(problem, options, start);
  if (problem.words <= 8) return search<8>(problem, options, start);
  if (problem.words <= 64) return search<64>(problem, options, start);
  CHECK(problem.words <= kPackWordsMax);
  return search<kPackWordsMax>(problem, options, start);
}

}  // namespace samepage::placer
