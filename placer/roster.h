#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/clock.h"
#include "core/result.h"
#include "placer/fleet.h"
#include "placer/usage.h"

namespace samepage::placer {

/// What an agent says about itself when it connects.
struct HostFacts {
  std::string agent_version;
  std::string hypervisor_version;
  std::uint64_t memory_bytes = 0;
  std::uint32_t cpus = 0;
  std::string address;
  std::string hardware = {};
  std::uint64_t link_bytes_s = 0;
  std::uint32_t boots_at_once = 0;  ///< 0: it did not say.
};

/// One VM in an agent's report; nothing in it is trusted.
struct ReportedVm {
  std::string uuid;
  std::string name;
  VmState state = VmState::kOther;
  std::uint64_t memory_bytes = 0;
  std::uint32_t vcpus = 0;
  double cpu_seconds = 0;
  std::string sharing_domain;
  std::vector<std::byte> fingerprint;  ///< Serialized; empty until the agent's first scan of it.
  std::chrono::milliseconds fingerprint_age{0};
  std::uint64_t network_bytes = 0;
  std::uint64_t disk_bytes = 0;

  /// What makes the fingerprint of the one before, instead of it.
  std::vector<std::byte> fingerprint_delta{};
  std::string tracker{};
  bool is_mergeable = true;
  std::string template_id{};
  std::optional<fingerprinter::MemoryShares> memory{};
};

struct HostReport {
  std::vector<ReportedVm> vms;
  HostMemory memory;

  /// The agent's steady clock when it counted memory, its own and the VMs'; 0: not counted.
  std::chrono::milliseconds counted{0};
  std::chrono::milliseconds clock{0};  ///< The agent's steady clock; 0: no usage in this report.
  double cpu_stalled = 0;
  double memory_stalled = 0;
  double io_stalled = 0;
};

/// One observation of what a host (parts of its capacity) or a VM (cores, bytes a second, and no
/// memory) used.
struct UsageSample {
  std::string subject;  ///< The host's name, or the VM's UUID.
  std::chrono::system_clock::time_point at{};
  bool is_host = false;
  double cpu = 0;
  double network = 0;
  double disk = 0;
  double memory = 0;
};

/// To whom a VM's memory belonged at one moment.
struct MemorySample {
  VmId vm;
  std::string host;
  std::chrono::system_clock::time_point at;
  fingerprinter::MemoryShares shares;
};

/// What an application, or somebody for it, says of its own figure.
struct AppFigure {
  std::string what;  ///< "response_ms"
  double value = 0;
  double limit = 0;  ///< Above it the application's promise is broken.
};

/// What the agents said last. It is soft state: lost with the process, complete again one report
/// later.
///
/// Invariant: a report is taken whole or refused whole, except that a VM of an unknown sharing
/// domain, or a fingerprint that cannot be read, is noted and the rest is taken. A VM that two
/// hosts report belongs to the one where it runs; if both say that it runs, to the newer report.
/// Threads: none of its own; one thread at a time.
class Roster {
 public:
  struct Options {
    std::chrono::seconds report_age_max{30};  ///< A host silent for longer counts as down.
    std::size_t hosts_max = 10'000;
    std::size_t vms_per_host_max = 2'000;
    std::uint64_t vm_memory_bytes_max = 64ULL << 40;
    std::uint64_t host_memory_bytes_max = 1'024ULL << 40;
    std::uint32_t host_cpus_max = 65'536;
    std::size_t text_bytes_max = 255;  ///< Of every name, version and address.
    std::uint32_t boots_at_once_max = 64;

    /// The fingerprint of a VM that no host reports is kept for so long: it may be on its way.
    std::chrono::seconds departed_age_max{600};
    std::size_t fingerprints_max = 200'000;

    /// Rates are taken over at least so long: reports that were asked for come in between.
    std::chrono::milliseconds usage_gap_min{500};
    std::size_t usage_window = 200;            ///< Observations kept of each host and VM.
    double link_bytes_s_max = 1e12;            ///< Counters that rise faster lie.
    std::chrono::seconds figure_age_max{300};  ///< An application's figure counts for so long.
  };

  Roster(const Options& options, const Clock& clock) : options_(options), clock_(clock) {}

  /// Hosts are known by enrolment only. kInvalid: too many hosts, or no usable name.
  Result<void> enroll(const std::string& host);

  /// kNotFound: no such host. kInvalid: it still holds VMs.
  Result<void> forget(std::string_view host);

  /// The sharing domains that have secrets; VMs of others are noted and never share.
  void set_domains(std::set<std::string> domains) { domains_ = std::move(domains); }

  /// kNotFound: the host is not enrolled. kInvalid: the facts are absurd; nothing was taken.
  Result<void> hello(std::string_view host, const HostFacts& facts);

  /// Returns one sentence for each oddity that it noted. kNotFound: the host is not enrolled.
  /// kInvalid: the report is absurd (its first fault is named); the earlier report stands.
  Result<std::vector<std::string>> report(std::string_view host, const HostReport& report);

  /// What the last reports that had counters told, of the hosts and VMs that they were about; each
  /// is told once.
  std::vector<UsageSample> take_samples() { return std::exchange(fresh_samples_, {}); }

  /// The same of the counts of VMs' memory.
  std::vector<MemorySample> take_memory_samples() {
    return std::exchange(fresh_memory_samples_, {});
  }

  /// Puts back what was known before a restart, oldest first.
  void restore(const std::vector<UsageSample>& samples);

  /// kInvalid: the figure is no sound number. kNotFound: no report has such a VM.
  Result<void> tell(const VmId& vm, const AppFigure& figure);

  void set_labels(std::map<std::string, std::map<std::string, std::string>> labels) {
    labels_ = std::move(labels);
  }

  /// Whether the last report had a delta for a fingerprint that is not here. The VM keeps the one
  /// that is, as old as it is, until its host tells a whole one.
  bool wants_whole(std::string_view host) const;

  /// The connection to a host's agent is gone: the host is down until its next report.
  void lost(std::string_view host);

  /// The fleet at this moment.
  Fleet fleet() const;

 private:
  using TimePoint = std::chrono::steady_clock::time_point;

  struct Scanned {
    std::shared_ptr<const fingerprinter::Fingerprint> fingerprint;
    TimePoint at;       ///< When the agent scanned.
    TimePoint seen_at;  ///< When a report last had this VM.
    std::string sharing_domain;
  };
  struct Entry {
    Vm vm;
    TimePoint fingerprinted_at;
    TimePoint in_state_since;  ///< When a report of its host first had it, in this state.
    bool misses_base = false;
  };
  struct Owner;
  struct Counters {
    std::chrono::milliseconds clock{0};
    double cpu_seconds = 0;
    std::uint64_t network_bytes = 0;
    std::uint64_t disk_bytes = 0;
  };
  struct Told {
    AppFigure figure;
    TimePoint at;
  };
  struct Member {
    HostFacts facts;
    std::map<VmId, Counters> counters;
    std::set<VmId> counted;  ///< The VMs that were there when its memory was counted.
    std::shared_ptr<const HostUsage> usage;
    std::uint64_t shared_pages_max = 0;  ///< The most that it shared of late.
    HostMemory memory;
    std::chrono::milliseconds counted_at{0};  ///< By its agent's clock.
    std::map<VmId, Entry> vms;
    TimePoint reported_at;
    bool has_reported = false;
    bool is_connected = false;
    bool wants_whole = false;
  };

  Result<Member*> member(std::string_view host);
  Result<void> check(const ReportedVm& vm) const;
  Result<void> check_text(std::string_view what, std::string_view text) const;
  Entry take(const ReportedVm& reported, std::vector<std::string>& notes) const;
  Result<fingerprinter::Fingerprint> read_fingerprint(const ReportedVm& reported) const;
  void remember(Entry& entry);
  bool is_up(const Member& member) const;
  bool is_counted_anew(const Member& member) const;
  Host describe(const std::string& name, const Member& member) const;
  void claim(Owner& owner, const Member& member, const Entry& entry) const;
  void observe(std::string_view host, Member& speaker, const HostReport& report,
               std::vector<std::string>& notes);
  std::optional<UsageSample> rates(const ReportedVm& vm, const Counters& before,
                                   std::chrono::milliseconds clock) const;
  void add_to(const UsageSample& sample, const std::string& hardware);
  void forget_departed();
  void list(std::string_view host, const std::map<VmId, Entry>& before,
            const std::map<VmId, Entry>& now);
  Pressure pressure(Member& speaker, const HostReport& report) const;
  std::string violation_on(const Member& member) const;
  void take_memory(std::string_view host, Member& speaker, const HostReport& report);
  void note_copies(std::string_view host, std::vector<std::string>& notes) const;

  Options options_;
  const Clock& clock_;
  std::set<std::string> domains_{"default"};
  std::map<std::string, Member, std::less<>> members_;
  std::map<std::string, std::shared_ptr<const VmUsage>> vm_usage_;  ///< By UUID.
  std::map<VmId, Told> figures_;
  std::map<std::string, std::map<std::string, std::string>> labels_;  ///< By host.
  std::vector<UsageSample> fresh_samples_;
  std::vector<MemorySample> fresh_memory_samples_;
  std::map<VmId, Scanned> scanned_;  ///< Each VM's last fingerprint, wherever it was made.
  std::map<VmId, std::vector<std::string>> hosts_of_;  ///< That report a VM, one nearly always.
  TimePoint forgot_at_{};                              ///< When it last looked for the departed.
};

}  // namespace samepage::placer
