#include "tools/samepaged/boots.h"

#include <algorithm>
#include <filesystem>
#include <span>
#include <system_error>
#include <thread>
#include <utility>

#include "core/kvm.h"
#include "core/log.h"
#include "core/page.h"
#include "fingerprinter/ksm_accounting.h"
#include "migrator/image_domain.h"

namespace samepage::agent {
namespace {

using migrator::ShelvedTemplate;
using migrator::TemplateState;

constexpr std::uint64_t kReadyMsMax = 3'600'000;
constexpr std::size_t kFirstRunsMax = 1'000;
constexpr auto kFirstRunMax = std::chrono::minutes(2);
constexpr auto kFirstRunPause = std::chrono::milliseconds(200);
constexpr const char* kFirstRun = "/usr/lib/samepage/first-run";

bus::TemplateInfo describe(const TemplateState& state) {
  bus::TemplateInfo info;
  info.set_name(state.name);
  info.set_id(state.id);
  info.set_image(state.image);
  info.set_image_version(state.image_version);
  info.set_memory_bytes(state.memory_bytes);
  info.set_vcpus(state.vcpus);
  info.set_hypervisor(state.hypervisor);
  info.set_made_at_s(state.made_at.time_since_epoch().count());
  info.set_ready_ms(state.ready_ms);
  return info;
}

migrator::ReadyWhen ready_when(const bus::MakeTemplate& request) {
  using Kind = migrator::ReadyWhen::Kind;
  migrator::ReadyWhen when;
  when.kind = request.ready() == bus::MakeTemplate::SERIAL  ? Kind::kSerial
              : request.ready() == bus::MakeTemplate::AGENT ? Kind::kAgent
                                                            : Kind::kTime;
  when.pattern = request.pattern();
  when.time = std::chrono::milliseconds(std::min(request.ready_ms(), kReadyMsMax));
  return when;
}

migrator::ImageDomain domain_of(const bus::MakeTemplate& request) {
  return {.name = request.name(),
          .memory_mib = request.memory_mib(),
          .vcpus = request.vcpus(),
          .kernel = request.kernel(),
          .initrd = request.initrd(),
          .command_line = request.command_line(),
          .nic = request.nic(),
          .has_kvm = has_kvm()};
}

}  // namespace

Boots::Boots(std::unique_ptr<migrator::TemplateShelf> shelf, const Options& options,
             const Host& host)
    : shelf_(std::move(shelf)),
      store_(options.store, host.clock),
      disks_(host.disks),
      vms_(host.vms),
      hypervisor_(host.hypervisor),
      clock_(host.clock),
      forker_(vms_, *shelf_, disks_, clock_),
      first_runs_("first-runs", kFirstRunsMax) {}

void Boots::stop() {
  stopping_ = true;
  first_runs_.stop();
}

Result<std::unique_ptr<Boots>> Boots::create(const Options& options, const Host& host) {
  auto shelf = TRY(migrator::TemplateShelf::open(
      {.folder = options.shelf_folder, .bytes_max = options.template_bytes_max}));
  // libvirt makes this folder when it starts its first VM, too late for that VM's serial line.
  std::error_code ignored;
  std::filesystem::create_directories(migrator::ImageDomain().serial_folder, ignored);
  std::unique_ptr<Boots> boots(new Boots(std::move(shelf), options, host));
  if (const auto clean = boots->clean_up(); !clean) {
    log_warning("half-made domains not removed why=\"{}\"", clean.error().message());
  }
  return boots;
}

Result<void> Boots::clean_up() {
  const MutexLock lock(cleaning_);
  if (clean_) return {};
  TRY(forker_.clean_up());
  clean_ = true;
  return {};
}

Result<bus::TemplateInfo> Boots::make(const bus::MakeTemplate& request) {
  TRY(clean_up());
  const MutexLock lock(making_);
  if (store_.find(request.name()) || shelf_->find(request.name())) {
    return fail(Errc::kInvalid, "template " + request.name() + " exists; `samepage template rm " +
                                    request.name() + "` removes it");
  }
  const migrator::LeaderOrder order = TRY(leader_order(request));
  const auto deadline =
      clock_.now() + std::chrono::milliseconds(std::min(request.time_max_ms(), kReadyMsMax));
  auto shelved = TRY(forker_.make_template(order, deadline, [this] { return stopping_.load(); }));
  const auto stored = store_.put(*shelved);
  if (!stored) {
    const std::string id = shelved->state.id;
    shelved.reset();
    shelf_->remove(id);
    if (const auto removed = store_.remove(request.name()); !removed) {
      log_debug("nothing of it was stored why=\"{}\"", removed.error().message());
    }
    return tl::unexpected(Error(stored.error()).within("store the template"));
  }
  bus::TemplateInfo info = describe(shelved->state);
  info.set_stored(true);
  info.set_on_host(true);
  return info;
}

Result<migrator::LeaderOrder> Boots::leader_order(const bus::MakeTemplate& request) {
  migrator::LeaderOrder order;
  order.name = request.name();
  order.hypervisor = TRY(hypervisor_.facts()).hypervisor_version;
  order.ready_when = ready_when(request);
  order.image = request.image();
  order.image_version = request.image_version();
  order.domain = request.domain_xml().empty() ? TRY(image_domain_xml(domain_of(request)))
                                              : request.domain_xml();
  return order;
}

Result<bus::TemplateList> Boots::list(const bus::ListTemplates& request) {
  bus::TemplateList list;
  for (const auto& entry : shelf_->list()) {
    bus::TemplateInfo& info = *list.add_templates();
    info = describe(entry.shelved->state);
    info.set_on_host(true);
    info.set_ram_bytes(entry.ram_bytes);
    info.set_forks(entry.forks);
  }
  if (request.on_host_only()) return list;
  for (const TemplateState& state : store_.list()) {
    const auto here =
        std::find_if(list.mutable_templates()->begin(), list.mutable_templates()->end(),
                     [&](const auto& info) { return info.id() == state.id; });
    if (here != list.mutable_templates()->end()) {
      here->set_stored(true);
    } else {
      *list.add_templates() = describe(state);
      list.mutable_templates()->rbegin()->set_stored(true);
    }
  }
  return list;
}

Result<void> Boots::remove(const bus::RemoveTemplate& request) {
  const auto here = shelf_->find(request.name());
  // The store first: it refuses while disks of VMs stand on the template's.
  const auto removed = request.from_store() ? store_.remove(request.name()) : Result<void>();
  const bool was_stored = removed || removed.error().code() != Errc::kNotFound;
  if (!removed && (was_stored || !here)) return removed;
  if (here) shelf_->remove((*here)->state.id);
  return {};
}

Result<bus::TemplateInfo> Boots::fetch(const bus::FetchTemplate& request) {
  std::uint64_t fetched_bytes = 0;
  const Shelved shelved = TRY(get(request.name(), fetched_bytes));
  if (request.verify()) TRY(store_.verify(*shelved));
  bus::TemplateInfo info = describe(shelved->state);
  info.set_on_host(true);
  info.set_fetched_bytes(fetched_bytes);
  return info;
}

Result<Boots::Shelved> Boots::get(const std::string& name, std::uint64_t& fetched_bytes) {
  if (const auto here = shelf_->find(name)) return *here;
  const MutexLock lock(making_);
  if (const auto here = shelf_->find(name)) return *here;  // Another request got it meanwhile.
  const auto state = TRY(stored_state(name));
  TRY(shelf_->make_room(state.memory_bytes));
  const auto folder = TRY(shelf_->begin(state.id));
  const auto bytes = store_.get_ram(state, folder / state.ram_block);
  if (!bytes) {
    shelf_->remove(state.id);
    return tl::unexpected(Error(bytes.error()).within("get template " + name));
  }
  fetched_bytes = *bytes;
  auto kept = shelf_->keep(state);
  if (!kept) shelf_->remove(state.id);
  log_info("template fetched name={} bytes={}", name, *bytes);
  return kept;
}

Result<TemplateState> Boots::stored_state(const std::string& name) const {
  auto state = store_.find(name);
  if (!state && state.error().code() == Errc::kNotFound) {
    return fail(Errc::kNotFound, "no template " + name +
                                     ", here or in the image store; `samepage "
                                     "template list` lists them");
  }
  return state;
}

Result<TemplateState> Boots::state_of(const std::string& name) const {
  const auto here = shelf_->find(name);
  return here ? (*here)->state : stored_state(name);
}

Result<bus::BootedVm> Boots::boot(const bus::BootVm& request) {
  TRY(clean_up());
  const migrator::VmIdentity identity{.name = request.vm_name(), .id = {request.vm_uuid()}};
  if (const auto there = TRY(find_vm(identity.name, identity.id))) {
    bus::BootedVm booted = TRY(look_at(*there));
    booted.set_was_there(true);
    return booted;
  }
  std::uint64_t fetched_bytes = 0;
  const auto started = clock_.now();
  const Shelved shelved = request.cold() ? nullptr : TRY(get(request.template_(), fetched_bytes));
  const TemplateState state = shelved ? shelved->state : TRY(state_of(request.template_()));
  if (request.replace_disk()) TRY(disks_.discard(identity.name));
  const migrator::ForkOrder order{.identity = identity, .paused = request.paused()};
  const auto report =
      TRY(shelved ? forker_.fork(*shelved, order) : forker_.boot_cold(state, order));
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(clock_.now() - started);
  log_info("vm booted vm={} template={} cold={} fork_ms={} all_ms={}", identity.name, state.name,
           request.cold(), report.took.count(), took.count());
  const auto vm = TRY(find_vm(identity.name, identity.id));
  if (!vm) return fail(Errc::kUnavailable, identity.name + " ended just after its boot");
  if (!request.paused() && state.leader.nics.empty()) {
    have_first_run(identity.id, state.leader.xml);
  }
  bus::BootedVm booted = TRY(look_at(*vm));
  booted.set_took_ms(static_cast<std::uint64_t>(took.count()));
  booted.set_fetched_bytes(fetched_bytes);
  return booted;
}

/// Nobody waits for it: the guest may have no agent, or no such program (docs/guest.md). A guest
/// with a network card, which `xml` of a leader does not tell, is told by the card.
void Boots::have_first_run(const VmId& vm, const std::string& xml) {
  if (migrator::has_network_card(xml) || !migrator::has_agent_channel(xml)) return;
  try_first_run(vm, clock_.now() + kFirstRunMax);
}

/// A guest that has just been forked, beside many others, may take its time to answer.
void Boots::try_first_run(const VmId& vm, Deadline deadline) {
  const bool posted = first_runs_.post([this, vm, deadline] {
    const auto ran = vms_.run_in_guest(vm, kFirstRun);
    if (ran || stopping_ || ran.error().code() == Errc::kNotFound) return;
    if (clock_.now() < deadline) {
      std::this_thread::sleep_for(kFirstRunPause);
      try_first_run(vm, deadline);
    } else {
      log_warning("no first run in vm={} why=\"{}\"", vm.uuid, ran.error().message());
    }
  });
  if (!posted && !stopping_) log_warning("no first run in vm={} why=\"too many wait\"", vm.uuid);
}

Result<void> Boots::wake(const bus::WakeVm& request) {
  const VmId vm{request.vm_uuid()};
  TRY(migrator::check_vm_id(vm));
  if (TRY(vms_.is_running(vm))) return {};
  TRY(vms_.resume(vm));
  have_first_run(vm, TRY(vms_.xml(vm)));
  log_info("vm woken vm={}", vm.uuid);
  return {};
}

Result<std::unique_ptr<migrator::TemplateArrival>> Boots::expect(
    const bus::PrepareTarget& request) {
  return migrator::TemplateArrival::expect(*shelf_, {.vm = {request.vm_uuid()},
                                                     .template_id = request.template_id(),
                                                     .sharing_domain = request.sharing_domain(),
                                                     .memory_bytes = request.memory_bytes()});
}

Result<std::optional<VmInfo>> Boots::find_vm(const std::string& name, const VmId& vm) {
  for (VmInfo& info : TRY(hypervisor_.vms())) {
    if (info.name == name || info.id == vm) return std::optional(std::move(info));
  }
  return std::optional<VmInfo>();
}

Result<bus::BootedVm> Boots::look_at(const VmInfo& vm) const {
  bus::BootedVm booted;
  booted.set_vm_uuid(vm.id.uuid);
  const auto counts = fingerprinter::count_frames(std::span(&vm, 1));
  if (counts && counts->shares.front()) {
    booted.set_own_bytes(counts->shares.front()->own * kPageSize);
  }
  return booted;
}

Result<void> Boots::end(const bus::EndVm& request) {
  const VmId vm{request.vm_uuid()};
  TRY(migrator::check_vm_id(vm));
  return vms_.end(vm);
}

}  // namespace samepage::agent
