#include "tools/samepage/divergence.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "core/page.h"

namespace samepage::cli {
namespace {

using fingerprinter::BlockTrace;
using fingerprinter::NamedRam;
using fingerprinter::RamImage;

constexpr auto kLook = std::chrono::milliseconds(20);
constexpr unsigned kTracedBoots = 2;

/// One boot's RAM at each moment, in order.
struct Boot {
  explicit Boot(std::size_t moments) : rams(moments), ran_s(moments) {}

  std::vector<std::optional<NamedRam>> rams;
  std::vector<double> ran_s;
  std::size_t next = 0;  ///< Of the seconds at which to look.
  bool waits_for_ready = false;
};

tl::unexpected<Error> not_ready(const DivergencePlan& plan) {
  return fail(Errc::kTimedOut,
              fmt::format("'{}' did not appear on the serial line within {:g} s; the kernel's "
                          "command line needs console=ttyS0 (--append), or wait longer with "
                          "--time-max",
                          plan.ready_when, plan.time_max_s));
}

std::string boot_step(const DivergenceSetting& setting, unsigned boot, unsigned boots) {
  return fmt::format("{} {}/{}", setting.name, boot + 1, boots);
}

/// Boots a plan's VMs under its settings, one after the other.
class Booter {
 public:
  Booter(const DivergencePlan& plan, const DivergenceProgress& progress)
      : plan_(plan), progress_(progress) {
    const unsigned traced = plan.blocks > 0 ? kTracedBoots : 0;
    all_boots_ = static_cast<double>(plan.sets.size() * (plan.boots + traced));
  }

  Result<DivergenceSet> run(const DivergenceSetting& setting);

 private:
  std::vector<std::string> moment_names() const;
  BootMachineOptions machine_of(const DivergenceSetting& setting) const;
  Result<Boot> boot(const DivergenceSetting& setting, const std::string& step);
  Result<void> step_on(BootMachine& machine, Boot& boot, const std::string& step);
  Result<void> look(BootMachine& machine, Boot& boot, std::size_t moment);
  Result<void> tell(const std::string& step, double of_boot);
  Result<BlockTrace> trace(const DivergenceSetting& setting, const std::string& step);

  const DivergencePlan& plan_;
  const DivergenceProgress& progress_;
  double all_boots_ = 0;
  double boots_done_ = 0;
};

std::vector<std::string> Booter::moment_names() const {
  std::vector<std::string> names;
  for (const double second : plan_.at_s) names.push_back(fmt::format("{:g} s", second));
  if (!plan_.ready_when.empty()) names.emplace_back("ready");
  return names;
}

BootMachineOptions Booter::machine_of(const DivergenceSetting& setting) const {
  BootMachineOptions machine = plan_.machine;
  if (setting.nokaslr) machine.command_line += " nokaslr";
  machine.has_fixed_seeds = setting.fixed_seeds;
  machine.has_fixed_clock = setting.fixed_clock;
  return machine;
}

Result<void> Booter::tell(const std::string& step, double of_boot) {
  const double done = (boots_done_ + std::clamp(of_boot, 0.0, 1.0)) / all_boots_;
  if (!progress_(step, done)) {
    return fail(Errc::kUnavailable, "interrupted; no VM and no file is left behind");
  }
  return {};
}

Result<void> Booter::look(BootMachine& machine, Boot& boot, std::size_t moment) {
  boot.ran_s[moment] = machine.ran_s();
  const Fd copy = TRY(machine.copy_ram(plan_.scratch));
  boot.rams[moment].emplace(NamedRam::of(TRY(RamImage::map(copy))));
  return {};
}

/// Looks when something is due. The guest is ready before, between or after the seconds at which to
/// look.
Result<void> Booter::step_on(BootMachine& machine, Boot& boot, const std::string& step) {
  const std::size_t ready = plan_.at_s.size();
  const double ran_s = machine.ran_s();
  TRY(machine.check_runs());
  if (boot.waits_for_ready && machine.has_said(plan_.ready_when)) {
    boot.waits_for_ready = false;
    return look(machine, boot, ready);
  }
  if (boot.next < ready && ran_s >= plan_.at_s[boot.next]) return look(machine, boot, boot.next++);
  if (ran_s > plan_.time_max_s) return not_ready(plan_);
  std::this_thread::sleep_for(kLook);
  return tell(step, ran_s / (boot.next < ready ? plan_.at_s.back() : plan_.time_max_s));
}

Result<Boot> Booter::boot(const DivergenceSetting& setting, const std::string& step) {
  const auto machine = TRY(BootMachine::start(machine_of(setting)));
  Boot boot(moment_names().size());
  boot.waits_for_ready = !plan_.ready_when.empty();
  while (boot.next < plan_.at_s.size() || boot.waits_for_ready) {
    TRY(step_on(*machine, boot, step));
  }
  boots_done_ += 1;
  return boot;
}

Result<BlockTrace> Booter::trace(const DivergenceSetting& setting, const std::string& step) {
  BootMachineOptions options = machine_of(setting);
  options.logs_blocks = true;
  const auto machine = TRY(BootMachine::start(options));
  BlockTrace trace(plan_.blocks);
  while (!trace.is_full()) {
    TRY(machine->check_runs());
    if (machine->ran_s() > plan_.time_max_s) {
      return fail(
          Errc::kTimedOut,
          fmt::format("the kernel executed only {} blocks within {:g} s; ask for fewer with "
                      "--executed, or wait longer with --time-max",
                      trace.blocks().size(), plan_.time_max_s));
    }
    TRY(tell(step, static_cast<double>(trace.blocks().size()) / static_cast<double>(plan_.blocks)));
    trace.add(machine->read_log());
  }
  boots_done_ += 1;
  return trace;
}

DivergenceMoment compare_boots(const std::vector<Boot>& boots, std::size_t moment,
                               const std::string& name) {
  DivergenceMoment found;
  found.name = name;
  for (std::size_t a = 0; a < boots.size(); ++a) {
    const NamedRam& ram = *boots[a].rams[moment];
    found.ran_s += boots[a].ran_s[moment] / static_cast<double>(boots.size());
    if (!ram.why_unnamed().empty()) found.why_unnamed = ram.why_unnamed();
    for (std::size_t b = 0; b < boots.size(); ++b) {
      if (a == b) continue;
      found.sum += fingerprinter::compare(ram, *boots[b].rams[moment]);
      ++found.pairs;
    }
  }
  return found;
}

Result<DivergenceSet> Booter::run(const DivergenceSetting& setting) {
  std::vector<Boot> boots;
  for (unsigned i = 0; i < plan_.boots; ++i) {
    boots.push_back(TRY(boot(setting, boot_step(setting, i, plan_.boots))));
  }
  DivergenceSet set;
  set.setting = setting;
  const std::vector<std::string> names = moment_names();
  for (std::size_t i = 0; i < names.size(); ++i) {
    set.moments.push_back(compare_boots(boots, i, names[i]));
  }
  if (plan_.blocks > 0) {
    const BlockTrace a = TRY(trace(setting, setting.name + " trace 1/2"));
    const BlockTrace b = TRY(trace(setting, setting.name + " trace 2/2"));
    set.execution = fingerprinter::compare(a, b);
  }
  return set;
}

}  // namespace

double DivergenceMoment::mib(std::uint64_t pages) const {
  if (pairs == 0) return 0;
  return static_cast<double>(pages) / pairs * kPageSize / (1U << 20U);
}

double DivergenceMoment::named_share() const {
  if (sum.all.different == 0) return 1;
  return static_cast<double>(sum.different_named()) / static_cast<double>(sum.all.different);
}

double DivergenceSet::shareable_mib() const {
  if (moments.empty()) return 0;
  const DivergenceMoment& last = moments.back();
  return last.mib(last.sum.all.same_place + last.sum.all.elsewhere);
}

Result<DivergenceSetting> parse_setting(const std::string& name) {
  DivergenceSetting setting;
  setting.name = name;
  if (name == "nokaslr") {
    setting.nokaslr = true;
  } else if (name == "fixed-seeds") {
    setting.fixed_seeds = true;
  } else if (name == "fixed-clock") {
    setting.fixed_clock = true;
  } else {
    return fail(Errc::kInvalid,
                "no setting '" + name + "': use nokaslr, fixed-seeds or fixed-clock");
  }
  return setting;
}

std::vector<DivergenceSetting> sets_of(const std::vector<DivergenceSetting>& settings) {
  std::vector<DivergenceSetting> sets(1);
  sets.front().name = "none";
  DivergenceSetting all;
  all.name = "all";
  for (const DivergenceSetting& setting : settings) {
    sets.push_back(setting);
    all.nokaslr |= setting.nokaslr;
    all.fixed_seeds |= setting.fixed_seeds;
    all.fixed_clock |= setting.fixed_clock;
  }
  if (settings.size() > 1) sets.push_back(all);
  return sets;
}

Result<std::vector<DivergenceSet>> measure_divergence(const DivergencePlan& plan,
                                                      const DivergenceProgress& progress) {
  Booter booter(plan, progress);
  std::vector<DivergenceSet> sets;
  for (const DivergenceSetting& setting : plan.sets) sets.push_back(TRY(booter.run(setting)));
  return sets;
}

}  // namespace samepage::cli
