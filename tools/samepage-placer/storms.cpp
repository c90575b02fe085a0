#include "tools/samepage-placer/storms.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "core/log.h"
#include "core/page.h"
#include "core/random_vm_id.h"

namespace samepage::control {
namespace {

using State = StormVm::State;

constexpr std::size_t kCountMax = 10'000;
constexpr std::size_t kNameBytesMax = 60;
constexpr auto kBootMax = std::chrono::seconds(180);
constexpr auto kFetchMax = std::chrono::seconds(600);

/// "web-%" makes web-1, web-2, ...; a pattern without % makes one VM of that very name.
Result<std::vector<std::string>> names_of(const StormOrder& order) {
  if (order.count == 0 || order.count > kCountMax) {
    return fail(Errc::kInvalid, fmt::format("a storm boots 1 to {} VMs", kCountMax));
  }
  const std::size_t at = order.pattern.find('%');
  const bool sound = !order.pattern.empty() && order.pattern.size() <= kNameBytesMax &&
                     std::all_of(order.pattern.begin(), order.pattern.end(), [](char c) {
                       return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' ||
                              c == '_' || c == '-' || c == '%';
                     });
  if (!sound) {
    return fail(Errc::kInvalid,
                "a VM's name is 1 to 60 letters, digits, '.', '_' and '-', with % for its number");
  }
  if (at == std::string::npos && order.count > 1) {
    return fail(Errc::kInvalid, "the names of several VMs need a % for their number");
  }
  std::vector<std::string> names;
  for (std::size_t i = 1; i <= order.count; ++i) {
    std::string name = order.pattern;
    if (at != std::string::npos) name.replace(at, 1, std::to_string(i));
    names.push_back(std::move(name));
  }
  return names;
}

std::uint64_t used_bytes(const placer::Fleet& fleet, const std::string& host) {
  std::uint64_t pages = 0;
  for (const placer::Vm* vm : fleet.vms_on(host)) pages += vm->memory_pages;
  return pages * kPageSize;
}

Result<std::vector<placer::StormHost>> hosts_for(const StormOrder& order,
                                                 const placer::Fleet& fleet,
                                                 const FleetTemplate& source) {
  for (const std::string& name : order.on) {
    const placer::Host* const host = fleet.find_host(name);
    if (host == nullptr || host->state != placer::HostState::kUp) {
      return fail(Errc::kUnavailable, "host " + name + " is not up; `samepage hosts` lists them");
    }
  }
  std::vector<placer::StormHost> hosts;
  for (const placer::Host& host : fleet.hosts) {
    const bool wanted = order.on.empty() ||
                        std::find(order.on.begin(), order.on.end(), host.name) != order.on.end();
    if (host.state != placer::HostState::kUp || !wanted) continue;
    const bool has = std::any_of(source.places.begin(), source.places.end(),
                                 [&](const auto& place) { return place.host == host.name; });
    hosts.push_back({.name = host.name,
                     .capacity_bytes = host.capacity_pages * kPageSize,
                     .used_bytes = used_bytes(fleet, host.name),
                     .boots_at_once = host.boots_at_once,
                     .has_template = has,
                     .shared_bytes = has ? source.info.memory_bytes() : 0});
  }
  if (hosts.empty()) return fail(Errc::kUnavailable, "no host is up; `samepage hosts` lists them");
  return hosts;
}

placer::Storm storm_of(const StormOrder& order, const FleetTemplate& source, std::size_t count) {
  placer::Storm storm{.count = count, .vm_bytes = source.info.memory_bytes()};
  if (order.cold) {
    storm.boot = std::chrono::milliseconds(source.info.ready_ms());
  } else {
    storm.template_bytes = source.info.memory_bytes();
  }
  return storm;
}

}  // namespace

std::string_view to_string(State state) {
  switch (state) {
    case State::kWaiting:
      return "waiting";
    case State::kBooting:
      return "booting";
    case State::kRunning:
      return "running";
    case State::kWasThere:
      return "was_there";
    case State::kFailed:
      return "failed";
    case State::kCancelled:
      return "cancelled";
  }
  return "failed";
}

Storms::~Storms() {
  std::deque<std::shared_ptr<Work>> works;
  {
    const MutexLock lock(mutex_);
    works.swap(works_);
  }
  for (const auto& work : works) work->cancelled = true;
}

Result<StormRecord> Storms::decide(const StormOrder& order, Deadline deadline) {
  const auto names = TRY(names_of(order));
  const FleetTemplate source = TRY(templates_.find(order.source, deadline));
  const placer::Fleet fleet = fleet_.fleet();
  const auto hosts = TRY(hosts_for(order, fleet, source));

  StormRecord record;
  record.order = order;
  record.template_name = source.info.name();
  std::vector<std::size_t> fresh;
  for (const std::string& name : names) {
    StormVm vm;
    vm.name = name;
    const auto there = std::find_if(fleet.vms.begin(), fleet.vms.end(),
                                    [&](const placer::Vm& known) { return known.name == name; });
    if (there != fleet.vms.end()) {
      vm.uuid = there->id.uuid;
      vm.host = there->host;
      vm.state = State::kWasThere;
    } else {
      vm.uuid = TRY(random_vm_id()).uuid;
      fresh.push_back(record.vms.size());
    }
    record.vms.push_back(std::move(vm));
  }
  const auto started = clock_.now();
  const auto placement = TRY(placer::place_storm(storm_of(order, source, fresh.size()), hosts));
  record.decided_us = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(clock_.now() - started).count());
  record.peak = placement.peak;
  record.peak_bound = placement.peak_bound;
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    record.hosts.push_back({.name = hosts[i].name,
                            .reason = placement.shares[i].reason,
                            .boots_at_once = hosts[i].boots_at_once,
                            .vms = placement.shares[i].vms,
                            .fetched_bytes = 0,
                            .used_after = placement.shares[i].used_after});
  }
  for (std::size_t i = 0; i < fresh.size(); ++i) {
    record.vms[fresh[i]].host = hosts[placement.host_of[i]].name;
  }
  return record;
}

Result<StormRecord> Storms::begin(const StormOrder& order, Deadline deadline) {
  return begin(TRY(decide(order, deadline)));
}

Result<StormRecord> Storms::begin(const StormRecord& decided) {
  auto work = std::make_shared<Work>();
  work->record = decided;
  work->started = clock_.now();
  const MutexLock lock(mutex_);
  if (works_.size() >= kStormsMax) {
    const auto ended = std::find_if(works_.begin(), works_.end(),
                                    [](const auto& one) { return one->record.ended; });
    if (ended == works_.end()) return fail(Errc::kUnavailable, "too many boot storms go on");
    works_.erase(ended);
  }
  work->record.id = ++last_id_;
  work->record.ended = std::none_of(work->record.vms.begin(), work->record.vms.end(),
                                    [](const StormVm& vm) { return vm.state == State::kWaiting; });
  for (std::size_t host = 0; host < work->record.hosts.size(); ++host) {
    if (work->record.hosts[host].vms == 0) continue;
    work->threads.emplace_back([this, self = work.get(), host] { run_host(*self, host); });
  }
  works_.push_back(work);
  return work->record;
}

Result<StormRecord> Storms::show(std::uint64_t id) const {
  const MutexLock lock(mutex_);
  for (const auto& work : works_) {
    if (work->record.id != id) continue;
    StormRecord record = work->record;
    if (!record.ended) {
      record.took_ms = static_cast<std::uint64_t>(
          std::chrono::duration_cast<std::chrono::milliseconds>(clock_.now() - work->started)
              .count());
    }
    return record;
  }
  return fail(Errc::kNotFound, "no boot storm " + std::to_string(id) +
                                   "; this placer was started after it, or it ended long ago");
}

Result<void> Storms::cancel(std::uint64_t id) {
  const MutexLock lock(mutex_);
  for (const auto& work : works_) {
    if (work->record.id != id) continue;
    work->cancelled = true;
    return {};
  }
  return fail(Errc::kNotFound, "no boot storm " + std::to_string(id));
}

void Storms::run_host(Work& work, std::size_t host) {
  if (!prepare_host(work, host)) return;
  unsigned at_once = 1;
  {
    const MutexLock lock(mutex_);
    at_once = work.record.hosts[host].boots_at_once;
  }
  const auto boot_some = [&] {
    std::size_t vm = 0;
    while (take_next(work, host, vm)) {
      StormVm order;
      {
        const MutexLock lock(mutex_);
        order = work.record.vms[vm];
      }
      finish(work, vm, boot(work.record, order));
    }
  };
  std::vector<std::jthread> more;
  for (unsigned i = 1; i < at_once; ++i) more.emplace_back(boot_some);
  boot_some();
}

bool Storms::prepare_host(Work& work, std::size_t host) {
  std::string name;
  {
    const MutexLock lock(mutex_);
    if (work.record.order.cold) return true;
    name = work.record.hosts[host].name;
  }
  bus::Envelope envelope;
  envelope.mutable_fetch_template()->set_name(work.record.template_name);
  const auto reply = bus_.request(name, std::move(envelope), clock_.now() + kFetchMax);
  if (reply) {
    const MutexLock lock(mutex_);
    work.record.hosts[host].fetched_bytes = reply->template_info().fetched_bytes();
    return true;
  }
  std::size_t vm = 0;
  while (take_next(work, host, vm)) finish(work, vm, tl::unexpected(reply.error()));
  return false;
}

bool Storms::take_next(Work& work, std::size_t host, std::size_t& vm) {
  const MutexLock lock(mutex_);
  const std::string& name = work.record.hosts[host].name;
  auto& vms = work.record.vms;
  for (vm = 0; vm < vms.size(); ++vm) {
    if (vms[vm].state != State::kWaiting || vms[vm].host != name) continue;
    vms[vm].state = work.cancelled ? State::kCancelled : State::kBooting;
    if (!work.cancelled) return true;
  }
  work.record.ended = std::none_of(vms.begin(), vms.end(), [](const StormVm& one) {
    return one.state == State::kWaiting || one.state == State::kBooting;
  });
  return false;
}

Result<bus::BootedVm> Storms::boot(const StormRecord& record, const StormVm& vm) {
  bus::Envelope envelope;
  bus::BootVm& request = *envelope.mutable_boot_vm();
  request.set_vm_name(vm.name);
  request.set_vm_uuid(vm.uuid);
  request.set_template_(record.template_name);
  request.set_cold(record.order.cold);
  request.set_paused(record.order.paused);
  request.set_replace_disk(record.order.replace_disks);
  auto reply = TRY(bus_.request(vm.host, std::move(envelope), clock_.now() + kBootMax));
  return std::move(*reply.mutable_booted_vm());
}

void Storms::finish(Work& work, std::size_t index, const Result<bus::BootedVm>& booted) {
  const MutexLock lock(mutex_);
  StormVm& vm = work.record.vms[index];
  if (booted) {
    vm.state = booted->was_there() ? State::kWasThere : State::kRunning;
    vm.uuid = booted->vm_uuid();
    vm.took_ms = booted->took_ms();
    vm.own_bytes = booted->own_bytes();
  } else {
    vm.state = State::kFailed;
    vm.error = booted.error().message();
    log_warning("vm not booted vm={} host={} why=\"{}\"", vm.name, vm.host, vm.error);
  }
  work.record.took_ms = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(clock_.now() - work.started).count());
}

}  // namespace samepage::control
