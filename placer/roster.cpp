#include "placer/roster.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "core/page.h"
#include "fingerprinter/fingerprint.h"
#include "fingerprinter/guest_process.h"

namespace samepage::placer {
namespace {

using fingerprinter::Fingerprint;

bool is_printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x20 && byte != 0x7F;
  });
}

std::chrono::milliseconds age(std::chrono::steady_clock::time_point now,
                              std::chrono::steady_clock::time_point then) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(now - then);
}

/// A guest's RAM may be a little larger than it is said to be.
bool can_be(const fingerprinter::MemoryShares& shares, std::uint64_t memory_bytes) {
  const std::uint64_t pages_max = (memory_bytes + fingerprinter::kRamBytesMore) / kPageSize;
  return shares.own <= pages_max && shares.of_template <= pages_max - shares.own &&
         shares.ksm <= pages_max - shares.own - shares.of_template;
}

}  // namespace

Result<void> Roster::check_text(std::string_view what, std::string_view text) const {
  if (text.size() > options_.text_bytes_max) {
    return fail(Errc::kInvalid, "the " + std::string(what) + " has " + std::to_string(text.size()) +
                                    " bytes; " + std::to_string(options_.text_bytes_max) +
                                    " are the limit");
  }
  if (!is_printable(text)) {
    return fail(Errc::kInvalid, "the " + std::string(what) + " has control characters");
  }
  return {};
}

Result<void> Roster::enroll(const std::string& host) {
  TRY(check_text("host name", host));
  if (host.empty()) return fail(Errc::kInvalid, "a host needs a name");
  if (!members_.contains(host) && members_.size() >= options_.hosts_max) {
    return fail(Errc::kInvalid, "the fleet has " + std::to_string(options_.hosts_max) +
                                    " hosts, which is the limit");
  }
  members_.try_emplace(host);
  return {};
}

Result<Roster::Member*> Roster::member(std::string_view host) {
  const auto found = members_.find(host);
  if (found == members_.end()) {
    return fail(Errc::kNotFound,
                "no host named " + std::string(host) + "; `samepage hosts` lists them");
  }
  return &found->second;
}

Result<void> Roster::forget(std::string_view host) {
  const Member* const leaving = TRY(member(host));
  if (!leaving->vms.empty()) {
    return fail(Errc::kInvalid, std::string(host) + " still holds " +
                                    std::to_string(leaving->vms.size()) +
                                    " VMs; move them away first");
  }
  members_.erase(members_.find(host));
  return {};
}

Result<void> Roster::hello(std::string_view host, const HostFacts& facts) {
  Member* const speaker = TRY(member(host));
  TRY(check_text("agent's version", facts.agent_version));
  TRY(check_text("hypervisor's version", facts.hypervisor_version));
  TRY(check_text("address", facts.address));
  if (facts.memory_bytes < kPageSize || facts.memory_bytes > options_.host_memory_bytes_max) {
    return fail(Errc::kInvalid, "the agent of " + std::string(host) + " offers " +
                                    std::to_string(facts.memory_bytes) + " bytes of memory");
  }
  if (facts.cpus > options_.host_cpus_max) {
    return fail(Errc::kInvalid, "the agent of " + std::string(host) + " offers " +
                                    std::to_string(facts.cpus) + " processors");
  }
  if (static_cast<double>(facts.link_bytes_s) > options_.link_bytes_s_max) {
    return fail(Errc::kInvalid, "the agent of " + std::string(host) + " has a link of " +
                                    std::to_string(facts.link_bytes_s) + " bytes a second");
  }
  TRY(check_text("hardware", facts.hardware));
  speaker->facts = facts;
  speaker->is_connected = true;
  return {};
}

Result<void> Roster::check(const ReportedVm& vm) const {
  TRY(check_text("VM's UUID", vm.uuid));
  TRY(check_text("VM's name", vm.name));
  TRY(check_text("VM's sharing domain", vm.sharing_domain));
  TRY(check_text("VM's tracker", vm.tracker));
  TRY(check_text("VM's template", vm.template_id));
  if (vm.uuid.empty() || vm.name.empty()) {
    return fail(Errc::kInvalid, "a VM without a UUID or a name");
  }
  if (vm.memory_bytes < kPageSize || vm.memory_bytes > options_.vm_memory_bytes_max) {
    return fail(Errc::kInvalid,
                vm.name + " has " + std::to_string(vm.memory_bytes) + " bytes of memory");
  }
  if (!std::isfinite(vm.cpu_seconds) || vm.cpu_seconds < 0) {
    return fail(Errc::kInvalid, vm.name + " has used an impossible CPU time");
  }
  return {};
}

Roster::Entry Roster::take(const ReportedVm& reported, std::vector<std::string>& notes) const {
  Entry entry;
  entry.vm.id = VmId{reported.uuid};
  entry.vm.name = reported.name;
  entry.vm.state = reported.state;
  entry.vm.memory_pages = reported.memory_bytes / kPageSize;
  entry.vm.vcpus = reported.vcpus;
  entry.vm.cpu_seconds = reported.cpu_seconds;
  entry.vm.sharing_domain = reported.sharing_domain;
  entry.vm.template_id = reported.template_id;
  if (reported.memory && can_be(*reported.memory, reported.memory_bytes)) {
    entry.vm.memory = reported.memory;
  } else if (reported.memory) {
    notes.push_back(reported.name + " has more pages than memory; they are left out");
  }
  if (!domains_.contains(reported.sharing_domain)) {
    notes.push_back(reported.name + " is of the unknown sharing domain \"" +
                    reported.sharing_domain + "\" and shares with no other VM");
    return entry;
  }
  entry.vm.tracker = reported.tracker;
  entry.vm.is_mergeable = reported.is_mergeable;
  if (reported.fingerprint.empty() && reported.fingerprint_delta.empty()) return entry;

  auto parsed = read_fingerprint(reported);
  if (!parsed) {
    entry.misses_base = parsed.error().code() == Errc::kInvalid;
    if (entry.misses_base) return entry;
    notes.push_back("the fingerprint of " + reported.name +
                    " cannot be read: " + parsed.error().message());
    return entry;
  }
  // An age from before this process existed must not overflow the clock.
  constexpr std::chrono::milliseconds kAgeMax = std::chrono::hours(24 * 365);
  entry.vm.fingerprint = std::make_shared<const Fingerprint>(*std::move(parsed));
  entry.fingerprinted_at =
      clock_.now() - std::clamp(reported.fingerprint_age, std::chrono::milliseconds(0), kAgeMax);
  return entry;
}

Result<Fingerprint> Roster::read_fingerprint(const ReportedVm& reported) const {
  if (!reported.fingerprint.empty()) return Fingerprint::parse(reported.fingerprint);
  const auto base = scanned_.find(VmId{reported.uuid});
  if (base == scanned_.end() || base->second.sharing_domain != reported.sharing_domain) {
    return fail(Errc::kInvalid, "there is no fingerprint that this delta could be for");
  }
  return base->second.fingerprint->with_delta(reported.fingerprint_delta);
}

// A VM that has just arrived, or whose agent has restarted, is not scanned yet where it is now, but
// its memory is still much the same: the last fingerprint stands, and grows older.
void Roster::remember(Entry& entry) {
  const auto found = scanned_.find(entry.vm.id);
  if (entry.vm.fingerprint == nullptr) {
    if (found == scanned_.end()) return;
    found->second.seen_at = clock_.now();
    if (found->second.sharing_domain != entry.vm.sharing_domain) return;
    entry.vm.fingerprint = found->second.fingerprint;
    entry.fingerprinted_at = found->second.at;
    return;
  }
  if (found == scanned_.end() && scanned_.size() >= options_.fingerprints_max) return;
  scanned_[entry.vm.id] = {.fingerprint = entry.vm.fingerprint,
                           .at = entry.fingerprinted_at,
                           .seen_at = clock_.now(),
                           .sharing_domain = entry.vm.sharing_domain};
}

Result<std::vector<std::string>> Roster::report(std::string_view host, const HostReport& report) {
  Member* const speaker = TRY(member(host));
  if (report.vms.size() > options_.vms_per_host_max) {
    return fail(Errc::kInvalid, "the agent of " + std::string(host) + " reports " +
                                    std::to_string(report.vms.size()) + " VMs; " +
                                    std::to_string(options_.vms_per_host_max) + " are the limit");
  }
  const std::uint64_t pages_max = options_.host_memory_bytes_max / kPageSize;
  if (report.memory.resident_pages > pages_max || report.memory.distinct_frames > pages_max) {
    return fail(Errc::kInvalid,
                "the agent of " + std::string(host) + " counts more pages than a host can have");
  }

  std::vector<std::string> notes;
  std::map<VmId, Entry> entries;
  bool wants_whole = false;
  for (const ReportedVm& vm : report.vms) {
    const Result<void> sound = check(vm);
    if (!sound) {
      return fail(Errc::kInvalid,
                  "in the report of " + std::string(host) + ": " + sound.error().message());
    }
    Entry entry = take(vm, notes);
    entry.vm.host = host;
    const auto before = speaker->vms.find(entry.vm.id);
    const bool is_as_before =
        before != speaker->vms.end() && before->second.vm.state == entry.vm.state;
    entry.in_state_since = is_as_before ? before->second.in_state_since : clock_.now();
    wants_whole = wants_whole || entry.misses_base;
    if (!entries.emplace(entry.vm.id, std::move(entry)).second) {
      return fail(Errc::kInvalid,
                  "the report of " + std::string(host) + " has the VM " + vm.uuid + " twice");
    }
  }
  for (auto& [id, entry] : entries) remember(entry);
  observe(host, *speaker, report, notes);
  list(host, speaker->vms, entries);
  speaker->vms = std::move(entries);
  take_memory(host, *speaker, report);
  speaker->reported_at = clock_.now();
  speaker->has_reported = true;
  speaker->wants_whole = wants_whole;
  speaker->is_connected = true;
  forget_departed();
  note_copies(host, notes);
  return notes;
}

void Roster::take_memory(std::string_view host, Member& speaker, const HostReport& report) {
  speaker.memory = report.memory;
  if (report.counted.count() <= 0 || report.counted == speaker.counted_at) return;
  speaker.counted_at = report.counted;
  speaker.counted.clear();
  // Nobody took them: keep the newest.
  constexpr std::size_t kSamplesMax = 100'000;
  if (fresh_memory_samples_.size() > kSamplesMax) fresh_memory_samples_.clear();
  for (const auto& [id, entry] : speaker.vms) {
    speaker.counted.insert(id);
    if (!entry.vm.memory) continue;
    fresh_memory_samples_.push_back(
        {.vm = id, .host = std::string(host), .at = clock_.today(), .shares = *entry.vm.memory});
  }
}

void Roster::list(std::string_view host, const std::map<VmId, Entry>& before,
                  const std::map<VmId, Entry>& now) {
  for (const auto& [id, entry] : before) {
    const auto found = hosts_of_.find(id);
    std::erase(found->second, host);
    if (found->second.empty()) hosts_of_.erase(found);
  }
  for (const auto& [id, entry] : now) hosts_of_[id].emplace_back(host);
}

void Roster::note_copies(std::string_view host, std::vector<std::string>& notes) const {
  const Member& speaker = members_.find(host)->second;
  for (const auto& [id, entry] : speaker.vms) {
    for (const std::string& name : hosts_of_.at(id)) {
      if (name == host) continue;
      const Member& other = members_.find(name)->second;
      // A VM that has moved is told by its new host before the old one tells that it has left.
      if (other.reported_at < entry.in_state_since) continue;
      const auto twin = other.vms.find(id);
      const bool twice = entry.vm.state == VmState::kRunning && is_up(other) &&
                         twin->second.vm.state == VmState::kRunning;
      notes.push_back(entry.vm.name + " is on " + std::string(host) + " (" +
                      std::string(to_string(entry.vm.state)) + ") and on " + name + " (" +
                      std::string(to_string(twin->second.vm.state)) + ")" +
                      (twice ? ": it must not run twice" : ""));
    }
  }
}

bool Roster::wants_whole(std::string_view host) const {
  const auto found = members_.find(host);
  return found != members_.end() && found->second.wants_whole;
}

void Roster::lost(std::string_view host) {
  const auto found = members_.find(host);
  if (found != members_.end()) found->second.is_connected = false;
}

bool Roster::is_up(const Member& member) const {
  return member.is_connected && member.has_reported &&
         clock_.now() - member.reported_at <= options_.report_age_max;
}

// Reports repeat what the agent counted last.
bool Roster::is_counted_anew(const Member& member) const {
  return std::equal(member.vms.begin(), member.vms.end(), member.counted.begin(),
                    member.counted.end(),
                    [](const auto& here, const VmId& counted) { return here.first == counted; });
}

Host Roster::describe(const std::string& name, const Member& member) const {
  Host host{.name = name,
            .state = HostState::kNeverSeen,
            .capacity_pages = member.facts.memory_bytes / kPageSize,
            .cpus = member.facts.cpus,
            .address = member.facts.address,
            .agent_version = member.facts.agent_version,
            .hypervisor_version = member.facts.hypervisor_version,
            .hardware = member.facts.hardware,
            .link_bytes_s = static_cast<double>(member.facts.link_bytes_s),
            .boots_at_once = std::clamp(member.facts.boots_at_once, 1U, options_.boots_at_once_max),
            .labels = {},
            .memory = std::nullopt,
            .usage = member.usage,
            .report_age = std::nullopt};
  const std::string violation = violation_on(member);
  if (!violation.empty()) {
    auto usage = host.usage == nullptr ? std::make_shared<HostUsage>(options_.usage_window)
                                       : std::make_shared<HostUsage>(*host.usage);
    usage->pressure.violation = violation;
    host.usage = std::move(usage);
  }
  const auto labels = labels_.find(name);
  if (labels != labels_.end()) host.labels = labels->second;
  if (member.has_reported) {
    host.state = is_up(member) ? HostState::kUp : HostState::kDown;
    host.memory = member.memory;
    host.memory_is_of_now = is_counted_anew(member);
    host.report_age = age(clock_.now(), member.reported_at);
  }
  return host;
}

struct Roster::Owner {
  const Member* member = nullptr;
  const Entry* entry = nullptr;
  std::string copy_on;
  bool runs_twice = false;
};

void Roster::claim(Owner& owner, const Member& member, const Entry& entry) const {
  if (owner.entry == nullptr) {
    owner.member = &member;
    owner.entry = &entry;
    return;
  }
  const auto runs = [](const Entry& vm) { return vm.vm.state == VmState::kRunning; };
  const auto rank = [&](const Member& host, const Entry& vm) {
    return std::tuple(is_up(host) && runs(vm), runs(vm), is_up(host), host.reported_at);
  };
  owner.runs_twice = owner.runs_twice ||
                     (runs(entry) && is_up(member) && runs(*owner.entry) && is_up(*owner.member));
  owner.copy_on = entry.vm.host;
  if (rank(member, entry) > rank(*owner.member, *owner.entry)) {
    owner.copy_on = owner.entry->vm.host;
    owner.member = &member;
    owner.entry = &entry;
  }
}

Fleet Roster::fleet() const {
  Fleet fleet;
  std::map<VmId, Owner> owners;
  for (const auto& [name, member] : members_) {
    fleet.hosts.push_back(describe(name, member));
    for (const auto& [id, entry] : member.vms) claim(owners[id], member, entry);
  }

  const auto now = clock_.now();
  for (const auto& [id, owner] : owners) {
    Vm vm = owner.entry->vm;
    vm.copy_on = owner.copy_on;
    vm.runs_twice = owner.runs_twice;
    if (vm.fingerprint != nullptr) vm.fingerprint_age = age(now, owner.entry->fingerprinted_at);
    const auto usage = vm_usage_.find(id.uuid);
    if (usage != vm_usage_.end()) vm.usage = usage->second;
    fleet.vms.push_back(std::move(vm));
  }
  std::sort(fleet.vms.begin(), fleet.vms.end(), [](const Vm& a, const Vm& b) {
    return std::tie(a.name, a.id) < std::tie(b.name, b.id);
  });
  return fleet;
}

}  // namespace samepage::placer
