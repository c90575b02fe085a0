#include "tools/samepage-placer/standbys.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "core/child_process.h"
#include "core/log.h"

namespace samepage::control {
namespace {

constexpr std::array<std::string_view, 1> kSchema{
    "CREATE TABLE vms (vm TEXT PRIMARY KEY, now TEXT NOT NULL, host TEXT NOT NULL);"
    "CREATE TABLE sleepers (name TEXT PRIMARY KEY, vm TEXT NOT NULL REFERENCES vms (vm)"
    " ON DELETE CASCADE, host TEXT NOT NULL);"};
constexpr auto kLookInterval = std::chrono::seconds(1);
constexpr auto kFenceRetry = std::chrono::seconds(30);
constexpr auto kWakeMax = std::chrono::seconds(30);
constexpr std::chrono::milliseconds kFenceMax{60'000};

const placer::Vm* find_vm(const placer::Fleet& fleet, const std::string& name) {
  const auto found = std::find_if(fleet.vms.begin(), fleet.vms.end(),
                                  [&](const placer::Vm& vm) { return vm.name == name; });
  return found == fleet.vms.end() ? nullptr : &*found;
}

bool is_up(const placer::Fleet& fleet, const std::string& name) {
  const placer::Host* const host = fleet.find_host(name);
  return host != nullptr && host->state == placer::HostState::kUp;
}

std::string sleeper_state(const placer::Fleet& fleet, const std::string& name,
                          const std::string& host) {
  if (!is_up(fleet, host)) return "unknown";
  const placer::Vm* const vm = find_vm(fleet, name);
  if (vm == nullptr) return "gone";
  return vm->state == VmState::kPaused ? "asleep" : "awake";
}

}  // namespace

Result<std::unique_ptr<Standbys>> Standbys::create(Options options, BusServer& bus,
                                                   FleetState& fleet, Storms& storms,
                                                   const Clock& clock) {
  Database database = TRY(Database::open({.path = options.path}));
  TRY(database.migrate(kSchema));
  std::unique_ptr<Standbys> standbys(
      new Standbys(std::move(options), std::move(database), bus, fleet, storms, clock));
  standbys->watcher_ = std::jthread(
      [borrowed = standbys.get()](const std::stop_token& stop) { borrowed->watch(stop); });
  return standbys;
}

Standbys::Standbys(Options options, Database database, BusServer& bus, FleetState& fleet,
                   Storms& storms, const Clock& clock)
    : options_(std::move(options)),
      bus_(bus),
      fleet_(fleet),
      storms_(storms),
      clock_(clock),
      database_(std::move(database)) {}

Standbys::~Standbys() {
  stop();
}

void Standbys::stop() {
  watcher_ = {};
}

Result<StormRecord> Standbys::add(const Order& order, Deadline deadline) {
  const placer::Fleet fleet = fleet_.fleet();
  const placer::Vm* const vm = find_vm(fleet, order.vm);
  if (vm == nullptr) {
    return fail(Errc::kNotFound, "no VM " + order.vm + "; `samepage vms` lists them");
  }
  StormOrder storm{.source = order.source,
                   .count = order.count,
                   .pattern = order.vm + ".standby-%",
                   .on = order.on,
                   .paused = true};
  // A standby beside its VM would fall with it.
  if (storm.on.empty()) {
    for (const placer::Host& host : fleet.hosts) {
      if (host.state == placer::HostState::kUp) storm.on.push_back(host.name);
    }
  }
  std::erase(storm.on, vm->host);
  if (storm.on.empty()) {
    return fail(Errc::kUnavailable, "a standby belongs on another host than " + vm->host);
  }
  const MutexLock lock(mutex_);
  const StormRecord planned = TRY(storms_.decide(storm, deadline));
  Transaction transaction = TRY(database_.begin());
  auto insert = TRY(database_.prepare(
      "INSERT INTO vms (vm, now, host) VALUES (?1, ?1, ?2) ON CONFLICT (vm) DO NOTHING"));
  TRY(insert.bind({order.vm, vm->host}));
  TRY(insert.run());
  for (const StormVm& sleeper : planned.vms) {
    auto add =
        TRY(database_.prepare("INSERT OR REPLACE INTO sleepers (name, vm, host) SELECT ?1, ?2, ?3"
                              " WHERE NOT EXISTS (SELECT 1 FROM vms WHERE now = ?1)"));
    TRY(add.bind({sleeper.name, order.vm, sleeper.host}));
    TRY(add.run());
  }
  StormRecord begun = TRY(storms_.begin(planned));
  TRY(transaction.commit());
  return begun;
}

Result<std::vector<Standbys::Status>> Standbys::list() const {
  const MutexLock lock(mutex_);
  return read();
}

Result<std::vector<Standbys::Status>> Standbys::read() const {
  const placer::Fleet fleet = fleet_.fleet();
  std::vector<Status> all;
  auto vms = TRY(database_.prepare("SELECT vm, now, host FROM vms ORDER BY vm"));
  while (TRY(vms.step())) {
    Status status;
    status.vm = vms.text(0);
    status.now = vms.text(1);
    status.host = vms.text(2);
    const placer::Vm* const vm = find_vm(fleet, status.now);
    if (vm != nullptr && is_up(fleet, vm->host)) {
      status.host = vm->host;
      status.state = "running";
    } else if (is_up(fleet, status.host)) {
      status.state = "gone";
    } else {
      const auto down = down_.find(status.host);
      status.state = down != down_.end() && down->second.fenced ? "fenced" : "unknown";
    }
    all.push_back(std::move(status));
  }
  auto sleepers = TRY(database_.prepare("SELECT vm, name, host FROM sleepers ORDER BY name"));
  while (TRY(sleepers.step())) {
    const std::string of = sleepers.text(0);
    const auto vm =
        std::find_if(all.begin(), all.end(), [&](const Status& one) { return one.vm == of; });
    if (vm == all.end()) continue;
    Sleeper sleeper{.name = sleepers.text(1), .host = sleepers.text(2), .state = {}};
    sleeper.state = sleeper_state(fleet, sleeper.name, sleeper.host);
    vm->sleepers.push_back(std::move(sleeper));
  }
  return all;
}

Result<Standbys::Status> Standbys::read(const std::string& vm) const {
  for (Status& status : TRY(read())) {
    if (status.vm == vm) return std::move(status);
  }
  return fail(Errc::kNotFound, "VM " + vm + " has no standbys; `samepage standby list`");
}

Result<Standbys::Sleeper> Standbys::wake(const std::string& vm, bool force, Deadline deadline) {
  const MutexLock lock(mutex_);
  const Status status = TRY(read(vm));
  if (force || status.state == "gone" || status.state == "fenced") {
    return wake_one(status, deadline);
  }
  if (status.state == "running") {
    return fail(Errc::kUnavailable,
                status.now + " runs on " + status.host + "; --force wakes a standby all the same");
  }
  return fail(Errc::kUnavailable,
              "host " + status.host + " does not answer, but " + status.now +
                  " may run there: switch the host off, then wake with --force; or give the placer "
                  "a --fence-command, which does both");
}

Result<Standbys::Sleeper> Standbys::wake_one(const Status& status, Deadline deadline) {
  const placer::Fleet fleet = fleet_.fleet();
  for (const Sleeper& sleeper : status.sleepers) {
    const placer::Vm* const vm = find_vm(fleet, sleeper.name);
    if (sleeper.state != "asleep" || vm == nullptr) continue;
    TRY(become(status.vm, sleeper));
    bus::Envelope envelope;
    envelope.mutable_wake_vm()->set_vm_uuid(vm->id.uuid);
    const auto woken = bus_.request(sleeper.host, std::move(envelope), deadline);
    if (woken) {
      log_info("standby woken vm={} standby={} host={}", status.vm, sleeper.name, sleeper.host);
      return Sleeper{.name = sleeper.name, .host = sleeper.host, .state = "awake"};
    }
    // Unless it certainly is not there, it may have been woken.
    if (woken.error().code() != Errc::kNotFound) return tl::unexpected(woken.error());
  }
  return fail(Errc::kNotFound, "no standby of " + status.vm + " is asleep on a host that is up");
}

Result<void> Standbys::become(const std::string& vm, const Sleeper& sleeper) {
  Transaction transaction = TRY(database_.begin());
  auto now = TRY(database_.prepare("UPDATE vms SET now = ?, host = ? WHERE vm = ?"));
  TRY(now.bind({sleeper.name, sleeper.host, vm}));
  TRY(now.run());
  auto leave = TRY(database_.prepare("DELETE FROM sleepers WHERE name = ?"));
  TRY(leave.bind({sleeper.name}));
  TRY(leave.run());
  return transaction.commit();
}

Result<void> Standbys::remove(const std::string& vm, Deadline deadline) {
  const MutexLock lock(mutex_);
  const Status status = TRY(read(vm));
  const placer::Fleet fleet = fleet_.fleet();
  for (const Sleeper& sleeper : status.sleepers) {
    const placer::Vm* const there = find_vm(fleet, sleeper.name);
    if (there == nullptr || sleeper.state == "gone") continue;
    bus::Envelope envelope;
    envelope.mutable_end_vm()->set_vm_uuid(there->id.uuid);
    TRY(bus_.request(sleeper.host, std::move(envelope), deadline));
  }
  auto forget = TRY(database_.prepare("DELETE FROM vms WHERE vm = ?"));
  TRY(forget.bind({vm}));
  return forget.run();
}

void Standbys::watch(const std::stop_token& stop) {
  std::mutex sleep;
  std::condition_variable_any woken;
  std::unique_lock lock(sleep);
  while (!woken.wait_for(lock, stop, kLookInterval, [&] { return stop.stop_requested(); })) {
    look();
  }
}

void Standbys::look() {
  const placer::Fleet fleet = fleet_.fleet();
  fence_hosts(fleet);
  const MutexLock lock(mutex_);
  const auto all = read();
  if (!all) {
    log_error("standbys not read why=\"{}\"", all.error().message());
    return;
  }
  for (const Status& status : *all) {
    if (status.state == "running") {
      auto follow = database_.prepare("UPDATE vms SET host = ? WHERE vm = ? AND host <> ?1");
      if (follow && follow->bind({status.host, status.vm})) (void)follow->run();
    }
    const bool can_wake = std::any_of(status.sleepers.begin(), status.sleepers.end(),
                                      [](const Sleeper& one) { return one.state == "asleep"; });
    if (status.state != "fenced" || !can_wake) continue;
    const auto woken = wake_one(status, clock_.now() + kWakeMax);
    if (!woken) {
      log_warning("no standby woken vm={} why=\"{}\"", status.vm, woken.error().message());
    }
  }
}

/// Only hosts of VMs that have standbys are fenced.
void Standbys::fence_hosts(const placer::Fleet& fleet) {
  std::vector<std::string> due;
  {
    const MutexLock lock(mutex_);
    const auto all = read();
    if (!all) return;
    std::erase_if(down_, [&](const auto& one) { return is_up(fleet, one.first); });
    const auto now = clock_.now();
    for (const Status& status : *all) {
      if (status.state != "unknown" || status.sleepers.empty()) continue;
      const auto [down, is_new] =
          down_.try_emplace(status.host, Down{.since = now, .next_try = {}, .fenced = false});
      const bool ripe = now - down->second.since >= options_.fence_after;
      if (!ripe || now < down->second.next_try || options_.fence_command.empty()) continue;
      down->second.next_try = now + kFenceRetry;
      due.push_back(status.host);
    }
  }
  for (const std::string& host : due) {
    log_warning("host is fenced host={} command={}", host, options_.fence_command);
    const bool is_off = fence(host);
    if (!is_off) log_error("fencing failed, no standby is woken host={}", host);
    const MutexLock lock(mutex_);
    const auto down = down_.find(host);
    if (down != down_.end()) down->second.fenced = is_off;
  }
}

bool Standbys::fence(const std::string& host) const {
  const auto child = spawn_process({options_.fence_command, host});
  return child && ends_well(*child, Deadline::clock::now() + kFenceMax);
}

}  // namespace samepage::control
