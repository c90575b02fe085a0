#include "placer/placement.h"

#include <algorithm>
#include <array>
#include <map>
#include <string_view>

#include "core/check.h"
#include "placer/explain.h"

namespace samepage::placer {
namespace {

bool contains(std::span<const std::size_t> numbers, std::size_t number) {
  return std::find(numbers.begin(), numbers.end(), number) != numbers.end();
}

std::uint64_t less(std::uint64_t from, std::uint64_t amount) {
  return from > amount ? from - amount : 0;
}

}  // namespace

Placement::Placement(const Fleet& fleet, const PlanOptions& options)
    : fleet_(fleet), options_(options), slots_(fleet.hosts.size()), moved_(fleet.vms.size()) {
  std::map<std::string_view, std::size_t> host_by_name;
  for (std::size_t host = 0; host < fleet_.hosts.size(); ++host) {
    host_by_name.emplace(fleet_.hosts[host].name, host);
    slots_[host].common.resize(fleet_.vms.size());
  }
  for (std::size_t number = 0; number < fleet_.vms.size(); ++number) {
    Vm& vm = fleet_.vms[number];
    const std::size_t host = host_by_name.at(vm.host);
    why_fixed_.push_back(find_fault(vm));
    if (vm.fingerprint_age > options_.fingerprint_age_max) vm.fingerprint = nullptr;
    host_of_.push_back(host);
    slots_[host].residents.push_back(number);
    slots_[host].stayed.push_back(number);
  }
}

std::string Placement::find_fault(const Vm& vm) const {
  const Host* const host = fleet_.find_host(vm.host);
  if (host->state != HostState::kUp) return vm.host + " is down";
  if (vm.runs_twice) return vm.name + " runs on " + vm.host + " and on " + vm.copy_on + " at once";
  if (!vm.copy_on.empty()) {
    return vm.name + " has a copy on " + vm.copy_on + ": a migration goes on, or left it there";
  }
  if (vm.state == VmState::kPaused) return vm.name + " is paused";
  if (vm.state != VmState::kRunning) return vm.name + " does not run";
  if (vm.fingerprint == nullptr) return vm.name + " has no fingerprint yet";
  if (vm.fingerprint_age > options_.fingerprint_age_max) {
    return "the fingerprint of " + vm.name + " is " + age_text(vm.fingerprint_age) + " old (" +
           age_text(options_.fingerprint_age_max) + " is the limit)";
  }
  return {};
}

std::vector<const Vm*> Placement::vms(std::span<const std::size_t> numbers,
                                      std::span<const std::size_t> without) const {
  std::vector<const Vm*> chosen;
  for (const std::size_t number : numbers) {
    if (!contains(without, number)) chosen.push_back(&vm(number));
  }
  return chosen;
}

std::vector<const Vm*> Placement::vms_on(std::size_t host,
                                         std::span<const std::size_t> without) const {
  return vms(slots_.at(host).residents, without);
}

const PageUnion& Placement::pages(std::size_t host) {
  std::optional<PageUnion>& pages = slots_.at(host).pages;
  if (!pages) pages.emplace(vms_on(host));
  return *pages;
}

// Of all residents at once: what is without the i-th is the union of those before and after it.
const PageUnion& Placement::pages_without(std::size_t vm_number) {
  Slot& slot = slots_.at(host_of_.at(vm_number));
  if (slot.pages_without.empty()) {
    PageUnion after;
    for (std::size_t i = slot.residents.size(); i-- > 0;) {
      slot.pages_without.emplace(slot.residents[i], after);
      after.add(vm(slot.residents[i]));
    }
    PageUnion before;
    for (const std::size_t resident : slot.residents) {
      slot.pages_without.at(resident).add(before);
      before.add(vm(resident));
    }
  }
  return slot.pages_without.at(vm_number);
}

Estimate Placement::common(std::size_t vm_number, std::size_t host) {
  std::optional<Estimate>& known = slots_.at(host).common.at(vm_number);
  if (!known) {
    const PageUnion& others =
        host_of_.at(vm_number) == host ? pages_without(vm_number) : pages(host);
    known = others.common(vm(vm_number));
  }
  return *known;
}

// Merging takes minutes, so that a plan must not count on it before its end.
Placement::Room Placement::room_on_arrival(Numbers arriving, std::size_t host_number,
                                           Numbers gone) {
  Slot& slot = slots_.at(host_number);
  if (!slot.stayed_footprint) slot.stayed_footprint = PageUnion(vms(slot.stayed)).footprint();
  const std::uint64_t stayed =
      gone.empty() ? *slot.stayed_footprint : PageUnion(vms(slot.stayed, gone)).footprint();
  Room room{.needed = 0,
            .free = less(host(host_number).capacity_pages, stayed + slot.arrived_pages)};
  for (const std::size_t number : arriving) room.needed += own_pages(vm(number));
  return room;
}

Placement::Room Placement::room_at_the_end(Numbers arriving, std::size_t host_number,
                                           Numbers gone) {
  PageUnion residents = gone.empty() ? pages(host_number) : PageUnion(vms_on(host_number, gone));
  const std::uint64_t before = residents.footprint();
  for (const std::size_t number : arriving) residents.add(vm(number));
  const std::uint64_t after = residents.footprint();
  const double usable =
      static_cast<double>(host(host_number).capacity_pages) * (1.0 - options_.headroom);
  return {.needed = less(after, before),
          .free = less(static_cast<std::uint64_t>(std::max(usable, 0.0)), before)};
}

Placement::Room Placement::room(Numbers arriving, std::size_t host_number) {
  const Room on_arrival = room_on_arrival(arriving, host_number);
  if (!on_arrival.fits()) return on_arrival;
  const Room at_the_end = room_at_the_end(arriving, host_number);
  return at_the_end.fits() ? on_arrival : at_the_end;
}

void Placement::changed(Slot& slot) {
  ++slot.version;
  slot.pages.reset();
  slot.pages_without.clear();
  slot.stayed_footprint.reset();
  std::fill(slot.common.begin(), slot.common.end(), std::nullopt);
}

void Placement::move(std::size_t vm_number, std::size_t target) {
  CHECK(!moved_.at(vm_number));
  Slot& from = slots_.at(host_of_.at(vm_number));
  std::erase(from.residents, vm_number);
  std::erase(from.stayed, vm_number);
  changed(from);

  Slot& to = slots_.at(target);
  to.residents.push_back(vm_number);
  to.arrived_pages += own_pages(vm(vm_number));
  changed(to);
  host_of_.at(vm_number) = target;
  moved_.at(vm_number) = true;
}

double Placement::shared_pages() const {
  double pages = 0;
  for (std::size_t host = 0; host < slots_.size(); ++host) {
    pages += predict_sharing(vms_on(host)).total().pages;
  }
  return pages;
}

}  // namespace samepage::placer
