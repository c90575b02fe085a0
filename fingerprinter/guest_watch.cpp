#include "fingerprinter/guest_watch.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace samepage::fingerprinter {
namespace {

// A tracker that may miss a write is not trusted for longer than so many passes, and not with a
// guest that boots, whose pages change all the time.
constexpr std::uint64_t kPassesUntilAll = 16;
constexpr std::uint64_t kPassesYoung = 4;
// Asking the kernel run by run is cheaper than asking for all pages up to about here.
constexpr std::size_t kRunsMax = 1024;

std::uint64_t pages_in(std::span<const PageRun> runs) {
  std::uint64_t pages = 0;
  for (const PageRun& run : runs) pages += run.count;
  return pages;
}

/// The parts of `runs` that lie within `of`; both rising.
std::vector<PageRun> common_runs(std::span<const PageRun> runs, std::span<const PageRun> of) {
  std::vector<PageRun> common;
  for (std::size_t i = 0, j = 0; i < runs.size() && j < of.size();) {
    const std::uint64_t first = std::max(runs[i].first, of[j].first);
    const std::uint64_t run_end = runs[i].first + runs[i].count;
    const std::uint64_t of_end = of[j].first + of[j].count;
    const std::uint64_t end = std::min(run_end, of_end);
    if (first < end) common.push_back({first, end - first});
    (run_end <= of_end ? i : j)++;
  }
  return common;
}

/// The pages that are in any of the runs; both rising.
std::vector<PageRun> either(std::span<const PageRun> a, std::span<const PageRun> b) {
  std::vector<PageRun> sorted;
  std::ranges::merge(a, b, std::back_inserter(sorted), {}, &PageRun::first, &PageRun::first);
  std::vector<PageRun> all;
  for (const PageRun& run : sorted) {
    const std::uint64_t known = all.empty() ? 0 : all.back().first + all.back().count;
    const std::uint64_t end = run.first + run.count;
    if (all.empty() || run.first > known) {
      all.push_back(run);
    } else {
      all.back().count += std::max(end, known) - known;
    }
  }
  return all;
}

/// The pages of [0, pages) that are in none of the runs, which rise.
std::vector<PageRun> runs_between(std::span<const PageRun> runs, std::uint64_t pages) {
  std::vector<PageRun> between;
  std::uint64_t at = 0;
  for (const PageRun& run : runs) {
    if (run.first > at) between.push_back({at, run.first - at});
    at = run.first + run.count;
  }
  if (at < pages) between.push_back({at, pages - at});
  return between;
}

}  // namespace

GuestWatch::GuestWatch(const VmInfo& vm, HashSeed seed, std::unique_ptr<GuestMemory> memory,
                       std::unique_ptr<ChangeTracker> tracker)
    : vm_(vm),
      seed_(seed),
      memory_(std::move(memory)),
      tracker_(std::move(tracker)),
      census_(memory_->pages()) {}

Result<std::unique_ptr<GuestWatch>> GuestWatch::open(const VmInfo& vm, HashSeed seed) {
  auto memory = TRY(open_guest_memory(vm));
  auto tracker = TRY(track_changes(vm, *memory));
  return std::unique_ptr<GuestWatch>(
      new GuestWatch(vm, seed, std::move(memory), std::move(tracker)));
}

bool GuestWatch::watches(const VmInfo& vm, HashSeed seed) const {
  return vm.id == vm_.id && vm.pid == vm_.pid && vm.memory_bytes == vm_.memory_bytes &&
         seed.value == seed_.value;
}

Result<Fingerprint> GuestWatch::rescan(const ScanOptions& options) {
  const auto done = look(options);
  must_read_all_ = !done;
  if (!done) return tl::unexpected(done.error());
  const bool same = latest_ && pass_.pages_looked_at == 0 && !had_unsettled_;
  if (!same) latest_ = census_.fingerprint();
  had_unsettled_ = census_.has_unsettled();
  return *latest_;
}

Result<void> GuestWatch::look(const ScanOptions& options) {
  const std::vector<PageRun> runs = runs_to_look_at(TRY(tracker_->changed()));
  const std::vector<PageRun> populated =
      TRY(tracker_->is_exact() ? populated_and_forgotten(runs) : populated_among(runs));
  const Scan found = TRY(scan_runs(*memory_, populated, seed_, options));
  census_.take(runs, found);
  pass_ = {pages_in(runs), found.pages_read};
  ++passes_;
  return {};
}

// Which unsettled pages hold still by now only an exact tracker knows without a look.
std::vector<PageRun> GuestWatch::runs_to_look_at(std::vector<PageRun> changed) const {
  const bool is_due = passes_ < kPassesYoung || passes_ % kPassesUntilAll == 0;
  if (must_read_all_ || (!tracker_->is_exact() && is_due)) return {{0, memory_->pages()}};
  if (tracker_->is_exact()) return changed;
  return either(changed, census_.unsettled());
}

// An exact tracker names writes only: a kernel that splits a huge page, as KSM has it do, takes the
// pages that hold zeros away from the guest, and nobody has written them.
Result<std::vector<PageRun>> GuestWatch::populated_and_forgotten(std::span<const PageRun> runs) {
  const std::vector<PageRun> all = TRY(memory_->populated());
  if (census_.forget(runs_between(all, memory_->pages())) > 0) latest_.reset();
  return common_runs(all, runs);
}

Result<std::vector<PageRun>> GuestWatch::populated_among(std::span<const PageRun> runs) {
  if (runs.size() > kRunsMax) {
    const std::vector<PageRun> all = TRY(memory_->populated());
    return common_runs(all, runs);
  }
  std::vector<PageRun> populated;
  for (const PageRun& run : runs) {
    const std::vector<PageRun> within = TRY(memory_->populated_within(run));
    populated.insert(populated.end(), within.begin(), within.end());
  }
  return populated;
}

}  // namespace samepage::fingerprinter
