#include "fingerprinter/census.h"

#include <algorithm>
#include <utility>

namespace samepage::fingerprinter {
namespace {

constexpr std::uint8_t kInCellMax = 255;

/// The sizes differ enough to be worth a sketch of another shape.
bool is_outgrown(Sketch::Shape has, Sketch::Shape wanted) {
  const double now = has.share(0) * static_cast<double>(std::size_t{1} << has.resolution);
  const double then = wanted.share(0) * static_cast<double>(std::size_t{1} << wanted.resolution);
  return then > 1.3 * now || then * 1.3 < now;
}

}  // namespace

Census::Census(std::uint64_t pages) : contents_(pages, kAbsent), is_unsettled_(pages) {}

void Census::take(std::span<const PageRun> looked_at, const Scan& found) {
  const std::vector<std::uint64_t> before = std::exchange(unsettled_, {});
  auto hashed = found.hashed.begin();
  auto zeros = found.zero_runs.begin();
  auto old = before.begin();
  const auto settle_until = [&](std::uint64_t page) {
    for (; old != before.end() && *old < page; ++old) {
      is_unsettled_[*old] = false;
      --changing_;
      count(contents_[*old]);
    }
  };
  for (const PageRun& run : looked_at) {
    settle_until(run.first);
    for (std::uint64_t page = run.first; page < run.first + run.count; ++page) {
      while (zeros != found.zero_runs.end() && zeros->first + zeros->count <= page) ++zeros;
      while (hashed != found.hashed.end() && hashed->page < page) ++hashed;
      if (old != before.end() && *old == page) ++old;
      Content now = kAbsent;
      if (hashed != found.hashed.end() && hashed->page == page) {
        now = std::max<Content>(hashed->hash.value, 2);
      } else if (zeros != found.zero_runs.end() && zeros->first <= page) {
        now = kZero;
      }
      put(page, now);
    }
  }
  settle_until(contents_.size());
}

std::vector<PageRun> Census::unsettled() const {
  std::vector<PageRun> runs;
  for (const std::uint64_t page : unsettled_) {
    if (!runs.empty() && runs.back().first + runs.back().count == page) {
      ++runs.back().count;
    } else {
      runs.push_back({page, 1});
    }
  }
  return runs;
}

std::uint64_t Census::forget(std::span<const PageRun> absent) {
  std::uint64_t news = 0;
  for (const PageRun& run : absent) {
    for (std::uint64_t page = run.first; page < run.first + run.count; ++page) {
      if (contents_[page] == kAbsent) continue;
      put(page, kAbsent);
      ++news;
    }
  }
  std::erase_if(unsettled_, [this](std::uint64_t page) { return !is_unsettled_[page]; });
  return news;
}

void Census::put(std::uint64_t page, Content now) {
  const Content then = std::exchange(contents_[page], now);
  const bool was_unsettled = is_unsettled_[page];
  if (was_unsettled) {
    --changing_;
  } else if (then == now) {
    return;
  } else {
    discount(then);
  }
  const bool unsettled = then > kZero && now > kZero && then != now;
  is_unsettled_[page] = unsettled;
  if (unsettled) {
    unsettled_.push_back(page);
    ++changing_;
  } else {
    count(now);
  }
}

void Census::count(Content content) {
  if (content == kZero) ++zero_;
  if (content <= kZero) return;
  ++settled_;
  if (counts_.add({content}) == 1) mark({content}, true);
}

void Census::discount(Content content) {
  if (content == kZero) --zero_;
  if (content <= kZero) return;
  --settled_;
  if (counts_.remove({content}) == 0) mark({content}, false);
}

void Census::mark(PageHash hash, bool there) {
  if (!sketch_) return;
  const auto place = sketch_->place_of(hash);
  if (!place) return;
  std::uint8_t& count = in_cell_[place->band * sketch_->shape().cells + place->cell];
  if (count == kInCellMax) return;
  count = static_cast<std::uint8_t>(there ? count + 1 : count - 1);
  std::uint64_t& word = sketch_->band(place->band)[place->cell / 64];
  const std::uint64_t bit = std::uint64_t{1} << (place->cell % 64);
  word = count > 0 ? word | bit : word & ~bit;
}

void Census::build_sketch(Sketch::Shape shape) {
  sketch_.emplace(shape);
  in_cell_.assign(shape.cells * Sketch::kBands, 0);
  counts_.for_each([&](PageHash hash, std::uint32_t) { mark(hash, true); });
}

Fingerprint Census::fingerprint(std::size_t bytes) {
  const std::uint64_t unique = counts_.size();
  const Sketch::Shape wanted =
      Sketch::shape_for(unique, bytes == 0 ? Fingerprint::bytes_for(unique) : bytes);
  if (!sketch_ || is_outgrown(sketch_->shape(), wanted)) build_sketch(wanted);
  return {{.pages = contents_.size(),
           .zero = zero_,
           .unique = unique,
           .duplicate = settled_ - unique,
           .unsettled = changing_},
          *sketch_};
}

}  // namespace samepage::fingerprinter
