#include "core/libvirt_hypervisor.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include "core/libvirt_connection.h"
#include "core/migration_obstacle.h"
#include "core/vm_metadata.h"

namespace samepage {
namespace {

constexpr std::uint64_t kBytesPerKib = 1024;

// In MiB/s; the most that libvirt can hand to QEMU in bytes. The relay paces.
constexpr unsigned long long kBandwidthMax = static_cast<unsigned long long>(INT64_MAX) >> 20U;

// More than the start of a vCPU's thread takes.
constexpr unsigned long long kVcpuStartNs = 50'000'000;

constexpr std::size_t kCommandLineSizeMax = std::size_t{1} << 20U;

Error last_error() {
  return libvirt_error();
}

tl::unexpected<Error> failed_to(std::string_view attempt) {
  return tl::unexpected(last_error().within(attempt));
}

std::string version_text(unsigned long version) {
  return std::to_string(version / 1'000'000) + "." + std::to_string(version / 1'000 % 1'000) + "." +
         std::to_string(version % 1'000);
}

VmState state_of(int state, int reason) {
  if (state == VIR_DOMAIN_RUNNING || state == VIR_DOMAIN_BLOCKED) return VmState::kRunning;
  const bool is_halved =
      reason == VIR_DOMAIN_PAUSED_POSTCOPY || reason == VIR_DOMAIN_PAUSED_POSTCOPY_FAILED;
  return state == VIR_DOMAIN_PAUSED && !is_halved ? VmState::kPaused : VmState::kOther;
}

/// Domains as libvirt lists them, each owned.
std::vector<LibvirtDomain> adopt(virDomainPtr* domains, int count) {
  std::vector<LibvirtDomain> owned;
  owned.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) owned.emplace_back(domains[i]);
  std::free(domains);
  return owned;
}

void release_text(char* text) {
  std::free(text);
}
using LibvirtText = Handle<char, release_text>;

Result<std::string> sharing_domain_of(virDomainPtr domain) {
  const LibvirtText element(virDomainGetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT,
                                                 kVmMetadataNamespace, VIR_DOMAIN_AFFECT_LIVE));
  if (element) return sharing_domain_in(element.get());
  const virErrorPtr error = virGetLastError();
  if (error != nullptr && error->code == VIR_ERR_NO_DOMAIN_METADATA) {
    return VmInfo().sharing_domain;
  }
  return failed_to("read the metadata of a VM");
}

std::string template_of(virDomainPtr domain) {
  const LibvirtText element(virDomainGetMetadata(
      domain, VIR_DOMAIN_METADATA_ELEMENT, kTemplateMetadataNamespace, VIR_DOMAIN_AFFECT_LIVE));
  return element ? template_id_in(element.get()) : std::string();
}

/// The process that libvirt's pid file names, if it really is this VM's: the file may be stale.
pid_t qemu_pid(const std::string& folder, const VmInfo& vm) {
  std::ifstream file(folder + "/" + vm.name + ".pid");
  pid_t pid = 0;
  if (!(file >> pid) || pid <= 0) return 0;
  std::ifstream process("/proc/" + std::to_string(pid) + "/cmdline", std::ios::binary);
  std::string arguments(kCommandLineSizeMax, '\0');
  process.read(arguments.data(), static_cast<std::streamsize>(arguments.size()));
  arguments.resize(static_cast<std::size_t>(process.gcount()));
  return arguments.find(vm.id.uuid) == std::string::npos ? 0 : pid;
}

/// kNotFound: the VM ended in the meantime.
Result<VmInfo> describe(virDomainPtr domain, const std::string& pid_folder) {
  std::array<char, VIR_UUID_STRING_BUFLEN> uuid{};
  virDomainInfo info{};
  int state = VIR_DOMAIN_NOSTATE;
  int reason = 0;
  if (virDomainGetUUIDString(domain, uuid.data()) != 0 || virDomainGetInfo(domain, &info) != 0 ||
      virDomainGetState(domain, &state, &reason, 0) != 0) {
    return failed_to("describe a VM");
  }
  VmInfo vm;
  vm.id = {uuid.data()};
  vm.name = virDomainGetName(domain);
  vm.state = state_of(state, reason);
  vm.memory_bytes = info.maxMem * kBytesPerKib;
  vm.vcpus = info.nrVirtCpu;
  vm.cpu_seconds = static_cast<double>(info.cpuTime) / 1e9;
  vm.sharing_domain = TRY(sharing_domain_of(domain));
  vm.template_id = template_of(domain);
  vm.pid = qemu_pid(pid_folder, vm);
  return vm;
}

/// Whether it is paused, and none of its vCPUs has run in this QEMU.
Result<bool> sleeps_since_it_came(virDomainPtr domain) {
  virDomainInfo info{};
  if (virDomainGetInfo(domain, &info) != 0) return failed_to("describe a VM");
  if (info.state != VIR_DOMAIN_PAUSED) return false;
  std::vector<virVcpuInfo> vcpus(info.nrVirtCpu);
  const int count =
      virDomainGetVcpus(domain, vcpus.data(), static_cast<int>(vcpus.size()), nullptr, 0);
  if (count < 0) return failed_to("ask what a VM's vCPUs have run");
  vcpus.resize(static_cast<std::size_t>(count));
  return std::ranges::all_of(vcpus,
                             [](const virVcpuInfo& vcpu) { return vcpu.cpuTime < kVcpuStartNs; });
}

/// What the interfaces and disks of all VMs have transferred, by UUID. Empty where libvirt cannot
/// say: a VM can be managed without it.
class Traffic {
 public:
  explicit Traffic(virConnectPtr connect) {
    virDomainStatsRecordPtr* records = nullptr;
    const int count = virConnectGetAllDomainStats(
        connect, VIR_DOMAIN_STATS_INTERFACE | VIR_DOMAIN_STATS_BLOCK, &records,
        VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT);
    for (int i = 0; i < count; ++i) add(*records[i]);
    if (count >= 0) virDomainStatsRecordListFree(records);
  }

  void put(VmInfo& vm) const {
    const auto found = bytes_.find(vm.id.uuid);
    if (found == bytes_.end()) return;
    vm.network_bytes = found->second.network;
    vm.disk_bytes = found->second.disk;
  }

 private:
  struct Bytes {
    std::uint64_t network = 0;
    std::uint64_t disk = 0;
  };

  void add(const virDomainStatsRecord& record) {
    std::array<char, VIR_UUID_STRING_BUFLEN> uuid{};
    if (virDomainGetUUIDString(record.dom, uuid.data()) != 0) return;
    Bytes& bytes = bytes_[uuid.data()];
    for (int i = 0; i < record.nparams; ++i) {
      const virTypedParameter& value = record.params[i];
      if (value.type != VIR_TYPED_PARAM_ULLONG) continue;
      // "net.0.rx.bytes", "block.1.wr.bytes"
      const std::string_view name(static_cast<const char*>(value.field));
      if (!name.ends_with(".bytes")) continue;
      if (name.starts_with("net.")) bytes.network += value.value.ul;
      if (name.starts_with("block.")) bytes.disk += value.value.ul;
    }
  }

  std::map<std::string, Bytes, std::less<>> bytes_;
};

/// Empty when it cannot be read: what libvirt does without it is its default.
std::string read_text(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// libvirt's list of named values of different types.
class TypedParameters {
 public:
  TypedParameters() = default;
  TypedParameters(const TypedParameters&) = delete;
  TypedParameters& operator=(const TypedParameters&) = delete;
  ~TypedParameters() { virTypedParamsFree(values_, count_); }

  bool add(const char* name, const std::string& value) {
    return virTypedParamsAddString(&values_, &count_, &capacity_, name, value.c_str()) == 0;
  }
  bool add(const char* name, int value) {
    return virTypedParamsAddInt(&values_, &count_, &capacity_, name, value) == 0;
  }
  bool add(const char* name, unsigned long long value) {
    return virTypedParamsAddULLong(&values_, &count_, &capacity_, name, value) == 0;
  }

  std::uint64_t get(const char* name) const {
    unsigned long long value = 0;
    return virTypedParamsGetULLong(values_, count_, name, &value) == 1 ? value : 0;
  }

  /// The job's type, VIR_DOMAIN_JOB_..., or empty after an error.
  std::optional<int> read_job(virDomainPtr domain, unsigned flags) {
    virTypedParamsFree(std::exchange(values_, nullptr), std::exchange(count_, 0));
    int type = VIR_DOMAIN_JOB_NONE;
    if (virDomainGetJobStats(domain, &type, &values_, &count_, flags) != 0) return std::nullopt;
    return type;
  }

  virTypedParameterPtr values() { return values_; }
  unsigned count() const { return static_cast<unsigned>(count_); }

 private:
  virTypedParameterPtr values_ = nullptr;
  int count_ = 0;
  int capacity_ = 0;
};

Result<unsigned> migration_flags(virDomainPtr domain, const MigrateMode& mode) {
  unsigned flags = VIR_MIGRATE_LIVE | VIR_MIGRATE_PEER2PEER;
  flags |= mode.postcopy ? VIR_MIGRATE_POSTCOPY : VIR_MIGRATE_PAUSED;
  if (mode.streams > 0) flags |= VIR_MIGRATE_PARALLEL;
  const int persistent = virDomainIsPersistent(domain);
  if (persistent < 0) return failed_to("see whether the VM is persistent");
  if (persistent == 1) flags |= VIR_MIGRATE_PERSIST_DEST | VIR_MIGRATE_UNDEFINE_SOURCE;
  return flags;
}

}  // namespace

Result<std::unique_ptr<Hypervisor>> LibvirtHypervisor::create(Options options) {
  auto connection = TRY(LibvirtConnection::create(options.uri));
  return std::unique_ptr<Hypervisor>(
      std::make_unique<LibvirtHypervisor>(std::move(options), std::move(connection)));
}

LibvirtHypervisor::LibvirtHypervisor(Options options, std::unique_ptr<LibvirtConnection> connection)
    : options_(std::move(options)), connection_(std::move(connection)) {}

LibvirtHypervisor::~LibvirtHypervisor() = default;

Result<HypervisorFacts> LibvirtHypervisor::facts() {
  const auto connect = TRY(connection_->get());
  unsigned long hypervisor_version = 0;
  unsigned long library_version = 0;
  virNodeInfo node{};
  if (virConnectGetVersion(connect.get(), &hypervisor_version) != 0 ||
      virConnectGetLibVersion(connect.get(), &library_version) != 0 ||
      virNodeGetInfo(connect.get(), &node) != 0) {
    return failed_to("ask for the host's facts");
  }
  HypervisorFacts facts;
  facts.uri = options_.uri;
  facts.hypervisor_version =
      std::string(virConnectGetType(connect.get())) + " " + version_text(hypervisor_version);
  facts.library_version = "libvirt " + version_text(library_version);
  facts.memory_bytes = node.memory * kBytesPerKib;
  facts.cpus = static_cast<int>(node.cpus);
  return facts;
}

Result<std::vector<VmInfo>> LibvirtHypervisor::vms() {
  const auto connect = TRY(connection_->get());
  virDomainPtr* list = nullptr;
  const int count = virConnectListAllDomains(connect.get(), &list, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
  if (count < 0) return failed_to("list the VMs");
  const Traffic traffic(connect.get());
  std::vector<VmInfo> vms;
  for (const LibvirtDomain& domain : adopt(list, count)) {
    auto vm = describe(domain.get(), options_.pid_folder);
    if (vm) {
      traffic.put(*vm);
      vms.push_back(*std::move(vm));
    } else if (vm.error().code() != Errc::kNotFound && virDomainIsActive(domain.get()) != 0) {
      return tl::unexpected(std::move(vm).error());
    }
  }
  std::sort(vms.begin(), vms.end(),
            [](const VmInfo& a, const VmInfo& b) { return a.name < b.name; });
  return vms;
}

Result<void> LibvirtHypervisor::migrate(const MigrateRequest& request) {
  const auto domain = TRY(connection_->find(request.vm));
  const unsigned flags = TRY(migration_flags(domain.get(), request.mode));
  const std::string control_uri = "qemu+unix:///system?socket=" + request.control_socket;
  TypedParameters parameters;
  if (!parameters.add(VIR_MIGRATE_PARAM_URI, "unix://" + request.migrate_socket) ||
      !parameters.add(VIR_MIGRATE_PARAM_BANDWIDTH, kBandwidthMax)) {
    return failed_to("describe the migration");
  }
  const auto streams = static_cast<int>(request.mode.streams);
  if (streams > 0 && !parameters.add(VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS, streams)) {
    return failed_to("describe the migration");
  }
  TRY(set_downtime_max(request.vm, request.downtime_max));
  if (virDomainMigrateToURI3(domain.get(), control_uri.c_str(), parameters.values(),
                             parameters.count(), flags) == 0) {
    return {};
  }
  Error error = last_error();
  // The source's libvirtd reports its trouble with the target's in the words of trouble between
  // us and itself; only the VM's presence tells that it has really kept it.
  if (virDomainIsActive(domain.get()) == 1) return tl::unexpected(std::move(error));
  return fail(Errc::kTimedOut, "the outcome of the migration is unknown: " + error.message());
}

Result<void> LibvirtHypervisor::check_migratable(const VmId& vm) {
  const auto domain = TRY(connection_->find(vm));
  const LibvirtText xml(virDomainGetXMLDesc(domain.get(), 0));
  if (!xml) return failed_to("read the VM's description");
  auto obstacle = obstacle_in_domain(xml.get());
  const std::string version = TRY(facts()).hypervisor_version;
  if (!obstacle) obstacle = obstacle_in_version(version);
  if (!obstacle && TRY(sleeps_since_it_came(domain.get()))) {
    obstacle = obstacle_in_sleep(xml.get(), version);
  }
  if (!obstacle) obstacle = obstacle_in_qemu_conf(read_text(options_.qemu_conf));
  if (obstacle) return fail(Errc::kInvalid, "it cannot be migrated live: " + *obstacle);
  return {};
}

Result<MigrationProgress> LibvirtHypervisor::migration_progress(const VmId& vm) {
  const auto domain = TRY(connection_->find(vm));
  TypedParameters job;
  auto type = job.read_job(domain.get(), 0);
  const bool has_ended = type == VIR_DOMAIN_JOB_NONE;
  if (has_ended) {
    type = job.read_job(domain.get(),
                        VIR_DOMAIN_JOB_STATS_COMPLETED | VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED);
  }
  if (!type) return failed_to("ask for the migration's progress");
  MigrationProgress progress;
  progress.bytes_processed = job.get(VIR_DOMAIN_JOB_DATA_PROCESSED);
  progress.bytes_remaining = job.get(VIR_DOMAIN_JOB_DATA_REMAINING);
  progress.elapsed = std::chrono::milliseconds(job.get(VIR_DOMAIN_JOB_TIME_ELAPSED));
  // While the job runs, the same field is QEMU's guess.
  if (has_ended) progress.downtime = std::chrono::milliseconds(job.get(VIR_DOMAIN_JOB_DOWNTIME));
  return progress;
}

Result<void> LibvirtHypervisor::set_downtime_max(const VmId& vm,
                                                 std::chrono::milliseconds downtime_max) {
  const auto domain = TRY(connection_->find(vm));
  const auto milliseconds = static_cast<unsigned long long>(downtime_max.count());
  if (virDomainMigrateSetMaxDowntime(domain.get(), milliseconds, 0) != 0) {
    return failed_to("set the longest downtime");
  }
  return {};
}

Result<void> LibvirtHypervisor::cancel_migration(const VmId& vm) {
  const auto domain = TRY(connection_->find(vm));
  if (virDomainAbortJob(domain.get()) != 0) return failed_to("cancel the migration");
  return {};
}

Result<void> LibvirtHypervisor::start_postcopy(const VmId& vm) {
  const auto domain = TRY(connection_->find(vm));
  if (virDomainMigrateStartPostCopy(domain.get(), 0) != 0) return failed_to("switch to post-copy");
  return {};
}

Result<void> LibvirtHypervisor::resume(const VmId& vm) {
  const auto domain = TRY(connection_->find(vm));
  int state = VIR_DOMAIN_NOSTATE;
  if (virDomainGetState(domain.get(), &state, nullptr, 0) == 0 && state == VIR_DOMAIN_RUNNING) {
    return {};
  }
  if (virDomainResume(domain.get()) != 0) return failed_to("resume the VM");
  return {};
}

Result<bool> LibvirtHypervisor::resume_after_io_error(const VmId& vm) {
  const auto domain = TRY(connection_->find(vm));
  int state = VIR_DOMAIN_NOSTATE;
  int reason = 0;
  if (virDomainGetState(domain.get(), &state, &reason, 0) != 0) {
    return failed_to("ask for the VM's state");
  }
  if (state != VIR_DOMAIN_PAUSED || reason != VIR_DOMAIN_PAUSED_IOERROR) return false;
  if (virDomainResume(domain.get()) != 0) return failed_to("resume the VM");
  return true;
}

Result<void> LibvirtHypervisor::freeze_filesystems(const VmId& vm) {
  const auto domain = TRY(connection_->find(vm));
  if (virDomainFSFreeze(domain.get(), nullptr, 0, 0) < 0) {
    return failed_to("freeze the guest's file systems");
  }
  return {};
}

Result<void> LibvirtHypervisor::thaw_filesystems(const VmId& vm) {
  const auto domain = TRY(connection_->find(vm));
  if (virDomainFSThaw(domain.get(), nullptr, 0, 0) < 0) {
    return failed_to("thaw the guest's file systems");
  }
  return {};
}

Result<void> LibvirtHypervisor::discard_paused(const VmId& vm) {
  const auto domain = TRY(connection_->find(vm));
  int state = VIR_DOMAIN_NOSTATE;
  int reason = 0;
  if (virDomainGetState(domain.get(), &state, &reason, 0) != 0) {
    return failed_to("ask for the VM's state");
  }
  if (state_of(state, reason) != VmState::kPaused) {
    return fail(Errc::kInvalid, "the VM is not paused, so it is no abandoned copy");
  }
  const int persistent = virDomainIsPersistent(domain.get());
  if (persistent < 0 || virDomainDestroy(domain.get()) != 0) return failed_to("end the copy");
  if (persistent == 0) return {};
  // What the VM keeps in files (NVRAM, TPM state) may be shared with the host that runs it.
  const unsigned keep = VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | VIR_DOMAIN_UNDEFINE_KEEP_TPM;
  if (virDomainUndefineFlags(domain.get(), keep) != 0 && virDomainUndefine(domain.get()) != 0) {
    return failed_to("undefine the copy");
  }
  return {};
}

Result<void> LibvirtHypervisor::observe(std::function<void(const VmEvent&)> on_event) {
  return connection_->observe(std::move(on_event));
}

}  // namespace samepage
