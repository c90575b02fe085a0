// The part of Roster that turns counters into usage.

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "core/page.h"
#include "placer/roster.h"

namespace samepage::placer {
namespace {

template <class Usage>
std::shared_ptr<Usage> with(const std::shared_ptr<const Usage>& before, std::size_t window,
                            const std::vector<double>& values) {
  auto grown =
      before == nullptr ? std::make_shared<Usage>(window) : std::make_shared<Usage>(*before);
  for (std::size_t i = 0; i < values.size(); ++i) grown->series.at(i).add(values[i]);
  return grown;
}

std::vector<double> loads_of(const UsageSample& sample) {
  return {sample.cpu, sample.network, sample.disk};
}

double part(double used, double capacity) {
  return capacity > 0 ? used / capacity : 0;
}

bool is_part(double value) {
  return std::isfinite(value) && value >= 0 && value <= 1;
}

}  // namespace

// A counter that fell, or rose faster than any host can make it, tells nothing: the VM was started
// anew, or somebody lies.
std::optional<UsageSample> Roster::rates(const ReportedVm& vm, const Counters& before,
                                         std::chrono::milliseconds clock) const {
  const double seconds = std::chrono::duration<double>(clock - before.clock).count();
  if (vm.cpu_seconds < before.cpu_seconds || vm.network_bytes < before.network_bytes ||
      vm.disk_bytes < before.disk_bytes) {
    return std::nullopt;
  }
  UsageSample sample{.subject = vm.uuid, .at = clock_.today()};
  sample.cpu = (vm.cpu_seconds - before.cpu_seconds) / seconds;
  sample.network = static_cast<double>(vm.network_bytes - before.network_bytes) / seconds;
  sample.disk = static_cast<double>(vm.disk_bytes - before.disk_bytes) / seconds;
  const double cores_max = 1.5 * std::max(vm.vcpus, 1U) + 1;  // QEMU's own threads run beside them.
  if (sample.cpu > cores_max || sample.network > options_.link_bytes_s_max ||
      sample.disk > options_.link_bytes_s_max) {
    return std::nullopt;
  }
  return sample;
}

void Roster::observe(std::string_view host, Member& speaker, const HostReport& report,
                     std::vector<std::string>& notes) {
  if (report.clock.count() <= 0) return;
  // All VMs were asked at once, so their counters are of one age.
  const bool has_before = !speaker.counters.empty();
  const auto before_clock = has_before ? speaker.counters.begin()->second.clock : report.clock;
  const bool restarted = report.clock < before_clock;
  if (has_before && !restarted && report.clock - before_clock < options_.usage_gap_min) return;

  UsageSample whole{.subject = std::string(host), .at = clock_.today(), .is_host = true};
  bool any = report.vms.empty();
  std::map<VmId, Counters> counters;
  for (const ReportedVm& vm : report.vms) {
    const auto before = speaker.counters.find(VmId{vm.uuid});
    counters[VmId{vm.uuid}] = {.clock = report.clock,
                               .cpu_seconds = vm.cpu_seconds,
                               .network_bytes = vm.network_bytes,
                               .disk_bytes = vm.disk_bytes};
    if (before == speaker.counters.end() || restarted) continue;
    const std::optional<UsageSample> sample = rates(vm, before->second, report.clock);
    if (!sample) {
      notes.push_back(vm.name + " reports counters that cannot be; they are left out");
      continue;
    }
    any = true;
    whole.cpu += sample->cpu;
    whole.network += sample->network;
    whole.disk += sample->disk;
    add_to(*sample, speaker.facts.hardware);
    fresh_samples_.push_back(*sample);
  }
  speaker.counters = std::move(counters);
  if (!any) return;
  whole.cpu = part(whole.cpu, speaker.facts.cpus);
  whole.network = part(whole.network, static_cast<double>(speaker.facts.link_bytes_s));
  whole.disk = 0;  // No host says how much its disks can do.
  const std::uint64_t capacity = speaker.facts.memory_bytes / kPageSize;
  whole.memory =
      part(static_cast<double>(report.memory.distinct_frames), static_cast<double>(capacity));
  for (const double stalled : {report.cpu_stalled, report.memory_stalled, report.io_stalled}) {
    if (is_part(stalled)) continue;
    notes.push_back(fmt::format("{} reports a pressure of {}; it is left out", host, stalled));
  }
  auto usage = speaker.usage == nullptr ? std::make_shared<HostUsage>(options_.usage_window)
                                        : std::make_shared<HostUsage>(*speaker.usage);
  const std::array values{whole.cpu, whole.network, whole.disk, whole.memory};
  for (std::size_t i = 0; i < kResources; ++i) usage->series.at(i).add(values.at(i));
  usage->pressure = pressure(speaker, report);
  speaker.usage = std::move(usage);
  fresh_samples_.push_back(std::move(whole));
  // Nobody took them: keep the newest.
  constexpr std::size_t kSamplesMax = 100'000;
  if (fresh_samples_.size() > kSamplesMax) fresh_samples_.clear();
}

// What a VM used on hosts of another class says nothing of what it uses on this one.
void Roster::add_to(const UsageSample& sample, const std::string& hardware) {
  std::shared_ptr<const VmUsage>& usage = vm_usage_[sample.subject];
  const bool elsewhere = usage != nullptr && !usage->hardware.empty() && !hardware.empty() &&
                         usage->hardware != hardware;
  auto grown = with(elsewhere ? nullptr : usage, options_.usage_window, loads_of(sample));
  grown->hardware = hardware;
  usage = std::move(grown);
}

// Of VMs that nobody has reported for long. Looking for them costs as much as the fleet is large,
// so it is done ten times in the time that they are kept.
void Roster::forget_departed() {
  if (clock_.now() - forgot_at_ < options_.departed_age_max / 10) return;
  forgot_at_ = clock_.now();
  std::erase_if(scanned_, [&](const auto& known) {
    return clock_.now() - known.second.seen_at > options_.departed_age_max;
  });
  std::erase_if(figures_, [&](const auto& told) {
    return clock_.now() - told.second.at > options_.figure_age_max;
  });
  if (vm_usage_.size() <= options_.fingerprints_max) return;
  std::set<std::string> here;
  for (const auto& [name, member] : members_) {
    for (const auto& [id, entry] : member.vms) here.insert(id.uuid);
  }
  std::erase_if(vm_usage_, [&](const auto& used) { return !here.contains(used.first); });
}

Pressure Roster::pressure(Member& speaker, const HostReport& report) const {
  Pressure pressure;
  if (is_part(report.cpu_stalled)) pressure.cpu_stalled = report.cpu_stalled;
  if (is_part(report.memory_stalled)) pressure.memory_stalled = report.memory_stalled;
  if (is_part(report.io_stalled)) pressure.io_stalled = report.io_stalled;
  const std::uint64_t shared = report.memory.achieved_shared_pages();
  // What was shared once fades out of mind, by a tenth each report.
  speaker.shared_pages_max = std::max(shared, speaker.shared_pages_max * 9 / 10);
  pressure.sharing_lost_pages = static_cast<double>(speaker.shared_pages_max - shared);
  return pressure;
}

void Roster::restore(const std::vector<UsageSample>& samples) {
  for (const UsageSample& sample : samples) {
    if (!sample.is_host) {
      add_to(sample, {});
      continue;
    }
    const auto member = members_.find(sample.subject);
    if (member == members_.end()) continue;
    member->second.usage = with(member->second.usage, options_.usage_window,
                                {sample.cpu, sample.network, sample.disk, sample.memory});
  }
}

Result<void> Roster::tell(const VmId& vm, const AppFigure& figure) {
  if (!std::isfinite(figure.value) || !std::isfinite(figure.limit)) {
    return fail(Errc::kInvalid, "a figure and its limit must be sound numbers");
  }
  TRY(check_text("figure's name", figure.what));
  for (const auto& [name, member] : members_) {
    if (!member.vms.contains(vm)) continue;
    figures_[vm] = {.figure = figure, .at = clock_.now()};
    return {};
  }
  return fail(Errc::kNotFound, "no VM " + vm.uuid);
}

std::string Roster::violation_on(const Member& member) const {
  for (const auto& [id, entry] : member.vms) {
    const auto told = figures_.find(id);
    if (told == figures_.end()) continue;
    const auto& [figure, at] = told->second;
    if (clock_.now() - at > options_.figure_age_max || figure.value <= figure.limit) continue;
    return fmt::format("{} says that its {} is {:.4g}, above its limit of {:.4g}", entry.vm.name,
                       figure.what, figure.value, figure.limit);
  }
  return {};
}

}  // namespace samepage::placer
