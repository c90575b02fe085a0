#include "tools/samepaged/ksm_driver.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <system_error>
#include <utility>

#include "core/log.h"

namespace samepage::agent {
namespace {

// A pass takes so long while there is something to merge. A page merges in the second pass that
// sees it unchanged.
constexpr double kPassEagerS = 10;
constexpr double kPassIdleS = 600;
constexpr std::uint64_t kSleepEagerMs = 20;
constexpr std::uint64_t kSleepIdleMs = 200;
constexpr std::uint64_t kPagesMax = 100'000;

// Checksum, tree look-up and the walk to the page; measured 1.5 to 3 us where memory is warm.
constexpr double kSecondsPerPage = 3e-6;

// Less than this is not worth a core's time: 4 MiB, or 2 % of what is expected.
constexpr std::uint64_t kPagesWorthIt = 1'024;

constexpr std::array kDriven = {"pages_to_scan", "sleep_millisecs", "run"};

std::uint64_t pages_per_sleep(double pages, double seconds, std::uint64_t sleep_ms) {
  const double per_sleep = pages / seconds * static_cast<double>(sleep_ms) / 1e3;
  return std::clamp<std::uint64_t>(static_cast<std::uint64_t>(std::ceil(per_sleep)), 1, kPagesMax);
}

}  // namespace

KsmPace ksm_pace(const KsmNews& news, double cpu_share, double seconds_per_page) {
  const std::uint64_t worth_it = std::max(kPagesWorthIt, news.expected_pages / 50);
  const bool is_eager = news.expected_pages > news.achieved_pages + worth_it;
  KsmPace pace;
  pace.sleep_ms = is_eager ? kSleepEagerMs : kSleepIdleMs;
  pace.pages_to_scan = pages_per_sleep(static_cast<double>(news.mergeable_pages),
                                       is_eager ? kPassEagerS : kPassIdleS, pace.sleep_ms);
  // Of the sleep and the work after it, the work is cpu_share.
  const double work_s =
      static_cast<double>(pace.sleep_ms) / 1e3 * cpu_share / std::max(0.01, 1 - cpu_share);
  const auto affordable = static_cast<std::uint64_t>(std::max(1.0, work_s / seconds_per_page));
  pace.pages_to_scan = std::min(pace.pages_to_scan, affordable);
  return pace;
}

Result<std::unique_ptr<KsmDriver>> KsmDriver::create(Options options) {
  std::unique_ptr<KsmDriver> driver(new KsmDriver(std::move(options)));
  if (!driver->get("run")) {
    return fail(Errc::kNotFound, "no KSM in " + driver->options_.folder + " (CONFIG_KSM)");
  }
  TRY(driver->save());
  return driver;
}

KsmDriver::~KsmDriver() {
  restore();
}

Result<void> KsmDriver::save() {
  std::ifstream left(options_.saved_file);
  std::string name;
  std::uint64_t value = 0;
  while (left >> name >> value) former_[name] = value;
  left.close();
  if (former_.size() == kDriven.size()) {
    log_warning("ksm settings of an agent that was killed found file={}", options_.saved_file);
    return {};
  }
  former_.clear();
  for (const char* driven : kDriven) former_[driven] = TRY(get(driven));
  std::ofstream file(options_.saved_file, std::ios::trunc);
  for (const auto& [driven, was] : former_) file << driven << ' ' << was << '\n';
  file.flush();
  if (file) return {};
  former_.clear();
  return fail(Errc::kIo, "cannot write " + options_.saved_file);
}

void KsmDriver::restore() {
  if (former_.empty()) return;
  for (const char* driven : kDriven) {
    if (const auto done = put(driven, former_[driven]); !done) {
      log_warning("ksm not put back file={} why=\"{}\"", driven, done.error().message());
      return;
    }
  }
  std::remove(options_.saved_file.c_str());
  log_info("ksm put back run={} pages_to_scan={} sleep_ms={}", former_["run"],
           former_["pages_to_scan"], former_["sleep_millisecs"]);
}

Result<void> KsmDriver::follow(const KsmNews& news) {
  const KsmPace pace = ksm_pace(news, options_.cpu_share, kSecondsPerPage);
  if (pace_ == pace) return {};
  TRY(put("pages_to_scan", pace.pages_to_scan));
  TRY(put("sleep_millisecs", pace.sleep_ms));
  TRY(put("run", 1));
  pace_ = pace;
  log_info("ksm paced pages_to_scan={} sleep_ms={} expected_pages={} achieved_pages={}",
           pace.pages_to_scan, pace.sleep_ms, news.expected_pages, news.achieved_pages);
  return {};
}

Result<std::uint64_t> KsmDriver::get(const std::string& name) const {
  std::ifstream file(options_.folder + "/" + name);
  std::uint64_t value = 0;
  if (file >> value) return value;
  return fail(Errc::kIo, "cannot read " + options_.folder + "/" + name);
}

Result<void> KsmDriver::put(const std::string& name, std::uint64_t value) const {
  std::ofstream file(options_.folder + "/" + name);
  file << value;
  file.flush();
  if (file) return {};
  return fail(Errc::kIo, "cannot write " + options_.folder + "/" + name + ": " +
                             std::generic_category().message(errno));
}

}  // namespace samepage::agent
