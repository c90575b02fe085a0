#include "imagestore/base_reader.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>

#include <sys/prctl.h>

#include "core/log.h"

namespace samepage::imagestore {
namespace {

using Milliseconds = std::chrono::milliseconds;

constexpr std::size_t kPrefetchQueueMax = 1U << 18U;
constexpr Milliseconds kPollMax{1};
constexpr std::chrono::seconds kComplaintInterval{10};

/// Pages around one that was fetched, among which those of the same extent are looked for.
constexpr std::uint64_t kNeighbours = 2 * kExtentPagesMax;

bool may_pass(const Error& error) {
  return error.code() != Errc::kCorrupt && error.code() != Errc::kNotFound;
}

/// A request that waits for its pages.
struct Waiter {
  std::mutex mutex;
  std::condition_variable done;
  std::size_t missing = 0;
  std::optional<Error> error;

  void end_one(const Result<void>& result) {
    const std::lock_guard lock(mutex);
    if (!result && !error) error = result.error();
    if (--missing == 0) done.notify_all();
  }

  Result<void> wait() {
    std::unique_lock lock(mutex);
    done.wait(lock, [&] { return missing == 0; });
    if (error) return tl::unexpected(*error);
    return {};
  }
};

/// One page that is wanted.
struct Want {
  std::uint64_t page = 0;
  std::byte* into = nullptr;  ///< Null: only what kind of page it is.
  Waiter* waiter = nullptr;
  int damaged = 0;  ///< Tries that ended so.
};

}  // namespace

/// One thread with its source, and the wants of its part of the version.
class BaseReader::Lane {
 public:
  Lane(const Options& options, Mirror& mirror)
      : options_(options), mirror_(mirror), thread_([this](const std::stop_token& stop) {
          ::prctl(PR_SET_NAME, "base-reader");
          run(stop);
        }) {}

  ~Lane() {
    thread_.request_stop();
    {
      const std::lock_guard lock(mutex_);
      changed_.notify_all();
    }
    thread_.join();
    for (const Want& want : all_wants()) {
      if (want.waiter != nullptr) {
        want.waiter->end_one(fail(Errc::kUnavailable, "the disk is being closed"));
      }
    }
  }
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  void want(std::span<const Want> wants) {
    const std::lock_guard lock(mutex_);
    wants_.insert(wants_.end(), wants.begin(), wants.end());
    changed_.notify_all();
  }

  void prefetch(std::uint64_t page) {
    const std::lock_guard lock(mutex_);
    if (prefetches_.size() >= kPrefetchQueueMax) return;
    prefetches_.push_back(page);
    changed_.notify_all();
  }

  bool drain(Deadline deadline) {
    std::unique_lock lock(mutex_);
    return changed_.wait_until(lock, deadline, [&] { return prefetches_.empty() && !is_busy_; });
  }

  Counts counts() {
    const std::lock_guard lock(mutex_);
    return counts_;
  }

 private:
  struct Fetch {
    ObjectName name;
    std::unique_ptr<ExtentBuffer> buffer;
    std::vector<Want> wants;
    std::uint64_t page = 0;  ///< That it was begun for.
    bool is_prefetch = false;
  };
  using Kept = std::list<std::unique_ptr<Fetch>>;

  void run(const std::stop_token& stop);
  void pause(const std::stop_token& stop);
  bool open_source();
  void begin(Want want);
  Result<bool> try_begin(Want& want);
  void begin_prefetches();
  Result<void> start_fetch(const PageRef& ref, std::uint64_t page, std::vector<Want> wants);
  void poll();
  void end(std::unique_ptr<Fetch> fetch, Result<void> result);
  void keep(std::unique_ptr<Fetch> fetch);
  void spread(const Fetch& fetch);
  void keep_page(const Fetch& fetch, std::uint64_t page);
  void learn_zeros(std::uint64_t page);
  Result<void> deliver(const Fetch& fetch, const Want& want);
  void again(Want want, const Error& why);
  std::vector<Want> all_wants();
  void complain(const Error& why);

  const Options& options_;
  Mirror& mirror_;

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Want> wants_;
  std::deque<std::uint64_t> prefetches_;
  Counts counts_;
  bool is_busy_ = false;

  // The thread's own.
  std::unique_ptr<VersionSource> source_;
  std::map<std::uint64_t, std::unique_ptr<Fetch>> fetches_;  ///< By tag.
  std::unordered_map<ObjectName, std::uint64_t> by_extent_;
  std::uint64_t next_tag_ = 0;
  std::size_t prefetches_under_way_ = 0;
  Kept kept_;  ///< Most recently used first.
  std::unordered_map<ObjectName, Kept::iterator> kept_by_name_;
  std::vector<Want> failed_;  ///< To be tried again after the pause.
  Deadline retry_at_;
  Milliseconds pause_{0};
  Deadline next_complaint_;
  Counts own_counts_;

  std::jthread thread_;  // Last: begins when everything else is there.
};

void BaseReader::Lane::run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    std::deque<Want> wants;
    {
      std::unique_lock lock(mutex_);
      const bool waits = failed_.empty() && fetches_.empty();
      is_busy_ = !fetches_.empty();
      if (waits && wants_.empty() && prefetches_.empty()) {
        changed_.notify_all();
        changed_.wait(lock, stop, [&] { return !wants_.empty() || !prefetches_.empty(); });
      }
      wants.swap(wants_);
      is_busy_ = true;
    }
    if (stop.stop_requested()) {
      failed_.insert(failed_.end(), wants.begin(), wants.end());
      return;
    }
    if (!source_ && !open_source()) {
      failed_.insert(failed_.end(), wants.begin(), wants.end());
      pause(stop);
      continue;
    }
    source_->tend();
    if (!failed_.empty() && std::chrono::steady_clock::now() >= retry_at_) {
      for (const Want& want : std::exchange(failed_, {})) begin(want);
    }
    for (const Want& want : wants) begin(want);
    begin_prefetches();
    if (!fetches_.empty()) {
      poll();
    } else if (!failed_.empty()) {
      pause(stop);
    }
    own_counts_.source = source_->counts();
    const std::lock_guard lock(mutex_);
    counts_ = own_counts_;
  }
}

/// Until it is time to try again, or something else is wanted.
void BaseReader::Lane::pause(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, stop, retry_at_, [&] { return source_ && !wants_.empty(); });
}

bool BaseReader::Lane::open_source() {
  auto source = options_.open();
  if (source) {
    source_ = *std::move(source);
    pause_ = Milliseconds(0);
    return true;
  }
  complain(source.error());
  pause_ = std::clamp(pause_ * 2, options_.pause_min, options_.pause_max);
  retry_at_ = std::chrono::steady_clock::now() + pause_;
  return false;
}

void BaseReader::Lane::complain(const Error& why) {
  const auto now = std::chrono::steady_clock::now();
  if (now < next_complaint_) return;
  next_complaint_ = now + kComplaintInterval;
  log_warning("reading a disk's base failed and is tried again why=\"{}\"", why.message());
}

void BaseReader::Lane::begin(Want want) {
  const auto begun = try_begin(want);
  if (!begun) return again(want, begun.error());
  if (*begun && want.waiter != nullptr) want.waiter->end_one({});
}

/// True: done already. False: a fetch will end it.
Result<bool> BaseReader::Lane::try_begin(Want& want) {
  Manifest& manifest = source_->manifest();
  if (want.page >= manifest.pages()) {
    if (want.into != nullptr) std::fill_n(want.into, kPageSize, std::byte{0});
    mirror_.put_zeros(want.page, 1);
    return true;
  }
  const auto ref = TRY(manifest.find(want.page));
  if (want.into == nullptr || !ref) learn_zeros(want.page);
  if (want.into == nullptr) return true;
  if (!ref) {
    std::fill_n(want.into, kPageSize, std::byte{0});
    return true;
  }
  if (mirror_.run_at(want.page, want.page + 1).state == PageState::kWritten) {
    TRY(mirror_.read(want.page * kPageSize, {want.into, kPageSize}));
    return true;
  }
  const ObjectName& name = ref->place.extent;
  if (const auto kept = kept_by_name_.find(name); kept != kept_by_name_.end()) {
    kept_.splice(kept_.begin(), kept_, kept->second);
    TRY(deliver(**kept->second, want));
    keep_page(**kept->second, want.page);
    return true;
  }
  if (const auto under_way = by_extent_.find(name); under_way != by_extent_.end()) {
    fetches_.at(under_way->second)->wants.push_back(want);
    ++own_counts_.merged;
    return false;
  }
  if (source_->extents().under_way() >= source_->extents().fetches_max()) poll();
  TRY(start_fetch(*ref, want.page, {want}));
  ++own_counts_.demand_fetches;
  return false;
}

Result<void> BaseReader::Lane::start_fetch(const PageRef& ref, std::uint64_t page,
                                           std::vector<Want> wants) {
  auto fetch = std::make_unique<Fetch>();
  fetch->name = ref.place.extent;
  fetch->buffer = ExtentBuffer::create();
  fetch->wants = std::move(wants);
  fetch->page = page;
  fetch->is_prefetch = fetch->wants.empty();
  const std::uint64_t tag = next_tag_++;
  const ExtentFetch ask{.tag = tag, .name = fetch->name, .into = fetch->buffer.get()};
  TRY(source_->extents().start({&ask, 1}));
  if (fetch->is_prefetch) ++prefetches_under_way_;
  by_extent_.emplace(fetch->name, tag);
  fetches_.emplace(tag, std::move(fetch));
  return {};
}

void BaseReader::Lane::begin_prefetches() {
  while (prefetches_under_way_ < options_.prefetches_max && failed_.empty()) {
    std::uint64_t page = 0;
    {
      const std::lock_guard lock(mutex_);
      if (!wants_.empty() || prefetches_.empty()) return;
      page = prefetches_.front();
      prefetches_.pop_front();
    }
    if (page >= source_->manifest().pages() || mirror_.has(page)) continue;
    const auto ref = source_->manifest().find(page);
    if (!ref) return complain(ref.error());
    if (!*ref) {
      learn_zeros(page);
      continue;
    }
    const ObjectName& name = (*ref)->place.extent;
    if (const auto kept = kept_by_name_.find(name); kept != kept_by_name_.end()) {
      (*kept->second)->page = page;
      spread(**kept->second);
      continue;
    }
    if (by_extent_.contains(name)) continue;
    if (const auto begun = start_fetch(**ref, page, {}); !begun) return complain(begun.error());
    ++own_counts_.prefetches;
  }
}

void BaseReader::Lane::poll() {
  for (auto& fetched : source_->extents().poll(std::chrono::steady_clock::now() + kPollMax)) {
    auto entry = fetches_.extract(fetched.tag);
    if (entry.empty()) continue;
    by_extent_.erase(entry.mapped()->name);
    if (entry.mapped()->is_prefetch) --prefetches_under_way_;
    end(std::move(entry.mapped()), std::move(fetched.result));
  }
}

void BaseReader::Lane::end(std::unique_ptr<Fetch> fetch, Result<void> result) {
  if (!result) {
    if (fetch->wants.empty()) complain(result.error());
    for (const Want& want : fetch->wants) again(want, result.error());
    return;
  }
  pause_ = Milliseconds(0);
  std::vector<std::uint64_t> delivered;
  for (const Want& want : std::exchange(fetch->wants, {})) {
    const auto done = deliver(*fetch, want);
    if (!done) {
      again(want, done.error());
      continue;
    }
    delivered.push_back(want.page);
    want.waiter->end_one({});
  }
  spread(*fetch);
  for (const std::uint64_t page : delivered) {
    if (!mirror_.has(page)) keep_page(*fetch, page);
  }
  keep(std::move(fetch));
}

/// A mirror that cannot keep a page costs another fetch, no more.
void BaseReader::Lane::keep_page(const Fetch& fetch, std::uint64_t page) {
  const auto ref = source_->manifest().find(page);
  const auto slot = ref && *ref ? fetch.buffer->find((*ref)->digest) : std::nullopt;
  if (!slot || !mirror_.put(page, fetch.buffer->page(*slot))) return;
}

Result<void> BaseReader::Lane::deliver(const Fetch& fetch, const Want& want) {
  const auto ref = TRY(source_->manifest().find(want.page));
  const auto slot = ref ? fetch.buffer->find(ref->digest) : std::nullopt;
  if (!slot) {
    return fail(Errc::kCorrupt, "extent " + to_hex(fetch.name) + " does not have page " +
                                    std::to_string(want.page) + " of the version");
  }
  const PageView page = fetch.buffer->page(*slot);
  std::copy(page.begin(), page.end(), want.into);
  return {};
}

/// Keeps those pages of an extent that lie near the one that it was fetched for.
void BaseReader::Lane::spread(const Fetch& fetch) {
  Manifest& manifest = source_->manifest();
  const std::uint64_t leaf = fetch.page / kFanOut * kFanOut;
  const std::uint64_t first = std::max(leaf, fetch.page - std::min(fetch.page, kNeighbours));
  const std::uint64_t end = std::min({leaf + kFanOut, fetch.page + kNeighbours, manifest.pages()});
  std::uint64_t run = 0;  // Pages before `page` that lie side by side in the extent, too.
  std::size_t slot = 0;   // Behind them.
  const auto put_run = [&](std::uint64_t page) {
    if (run == 0) return;
    const auto bytes = fetch.buffer->pages().subspan((slot - run) * kPageSize, run * kPageSize);
    run = 0;
    if (!mirror_.put(page - bytes.size() / kPageSize, bytes)) return;
  };
  for (std::uint64_t page = first; page < end; ++page) {
    const auto ref = manifest.find(page);
    if (ref && !*ref) mirror_.put_zeros(page, 1);
    const bool here = ref && *ref && (*ref)->place.extent == fetch.name && !mirror_.has(page) &&
                      (*ref)->place.slot < fetch.buffer->count() &&
                      fetch.buffer->digests()[(*ref)->place.slot] == (*ref)->digest;
    if (!here || (run > 0 && (*ref)->place.slot != slot)) put_run(page);
    if (!here) continue;
    slot = (*ref)->place.slot + 1;
    ++run;
  }
  put_run(end);
}

void BaseReader::Lane::learn_zeros(std::uint64_t page) {
  Manifest& manifest = source_->manifest();
  const std::uint64_t first = page / kFanOut * kFanOut;
  const std::uint64_t end = std::min(first + kFanOut, manifest.pages());
  for (std::uint64_t at = first; at < end; ++at) {
    const auto ref = manifest.find(at);
    if (!ref) return;
    if (!*ref && !mirror_.has(at)) mirror_.put_zeros(at, 1);
  }
}

void BaseReader::Lane::keep(std::unique_ptr<Fetch> fetch) {
  if (options_.extents_kept == 0) return;
  if (kept_.size() >= options_.extents_kept) {
    kept_by_name_.erase(kept_.back()->name);
    kept_.pop_back();
  }
  kept_.push_front(std::move(fetch));
  kept_by_name_[kept_.front()->name] = kept_.begin();
}

void BaseReader::Lane::again(Want want, const Error& why) {
  if (!may_pass(why) && ++want.damaged >= kDamagedTries) {
    log_error("a page of a disk's base cannot be read page={} why=\"{}\"", want.page,
              why.message());
    if (want.waiter != nullptr) want.waiter->end_one(tl::unexpected(why));
    return;
  }
  complain(why);
  ++own_counts_.retries;
  if (failed_.empty()) {
    pause_ = std::clamp(pause_ * 2, options_.pause_min, options_.pause_max);
    retry_at_ = std::chrono::steady_clock::now() + pause_;
  }
  failed_.push_back(want);
}

std::vector<Want> BaseReader::Lane::all_wants() {
  std::vector<Want> all(failed_);
  all.insert(all.end(), wants_.begin(), wants_.end());
  for (const auto& [tag, fetch] : fetches_) {
    all.insert(all.end(), fetch->wants.begin(), fetch->wants.end());
  }
  return all;
}

BaseReader::BaseReader(Options options, Mirror& mirror)
    : options_(std::move(options)), mirror_(mirror) {
  for (unsigned i = 0; i < std::max(options_.threads, 1U); ++i) {
    lanes_.push_back(std::make_unique<Lane>(options_, mirror));
  }
}

BaseReader::~BaseReader() = default;

/// Whole leaves are one thread's, so that it finds their node where it left it.
BaseReader::Lane& BaseReader::lane_of(std::uint64_t page) {
  return *lanes_[page / kFanOut % lanes_.size()];
}

Result<void> BaseReader::read(std::uint64_t first, std::span<std::byte> pages) {
  Waiter waiter;
  std::map<Lane*, std::vector<Want>> wants;
  const std::uint64_t end = first + pages.size() / kPageSize;
  for (std::uint64_t page = first; page < end;) {
    const StateRun run = mirror_.run_at(page, end);
    const auto bytes = pages.subspan((page - first) * kPageSize, run.count * kPageSize);
    page += run.count;
    if (run.state == PageState::kWritten) {
      TRY(mirror_.read(run.first * kPageSize, bytes));
    } else if (run.state == PageState::kZero) {
      std::fill(bytes.begin(), bytes.end(), std::byte{0});
    } else {
      for (std::uint64_t i = 0; i < run.count; ++i) {
        wants[&lane_of(run.first + i)].push_back(
            {.page = run.first + i, .into = &bytes[i * kPageSize], .waiter = &waiter});
        ++waiter.missing;
      }
    }
  }
  if (waiter.missing == 0) return {};
  for (const auto& [lane, of_lane] : wants) lane->want(of_lane);
  return waiter.wait();
}

Result<void> BaseReader::resolve(std::uint64_t page) {
  Waiter waiter;
  waiter.missing = 1;
  const Want want{.page = page, .into = nullptr, .waiter = &waiter};
  lane_of(page).want({&want, 1});
  return waiter.wait();
}

void BaseReader::prefetch(std::span<const std::uint64_t> pages) {
  for (const std::uint64_t page : pages) {
    if (!mirror_.has(page)) lane_of(page).prefetch(page);
  }
}

bool BaseReader::drain(Deadline deadline) {
  return std::all_of(lanes_.begin(), lanes_.end(),
                     [&](const auto& lane) { return lane->drain(deadline); });
}

BaseReader::Counts BaseReader::counts() const {
  Counts sum;
  for (const auto& lane : lanes_) {
    const Counts counts = lane->counts();
    sum.demand_fetches += counts.demand_fetches;
    sum.prefetches += counts.prefetches;
    sum.merged += counts.merged;
    sum.retries += counts.retries;
    sum.source.origin_bytes += counts.source.origin_bytes;
    sum.source.node_bytes += counts.source.node_bytes;
    sum.source.own_extents += counts.source.own_extents;
    sum.source.remote_extents += counts.source.remote_extents;
    sum.source.origin_extents += counts.source.origin_extents;
    sum.source.failed_checks += counts.source.failed_checks;
  }
  return sum;
}

}  // namespace samepage::imagestore
