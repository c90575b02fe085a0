#include "tools/samepaged/agent.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <system_error>
#include <utility>

#include <poll.h>

#include "core/log.h"
#include "core/version.h"
#include "tools/samepaged/host_pressure.h"

namespace samepage::agent {
namespace {

using Effort = Reporter::Effort;

constexpr std::size_t kTasksMax = 256;
// What a relay keeps of the stream, and what is under way.
constexpr std::size_t kWarmBytes = std::size_t{320} << 20U;
constexpr auto kHelloAnswerMax = std::chrono::seconds(10);

Result<std::string> read_placer_key(const std::string& path) {
  std::ifstream file(path);
  std::string key;
  if (!(file >> key)) {
    return fail(Errc::kInvalid,
                "no placer key in " + path + "; copy the placer's placer.pub there");
  }
  return key;
}

Result<SharingDomain> read_domain(const bus::DomainSecret& secret) {
  SharingDomain domain;
  if (secret.digest_key().size() != domain.key.bytes.size()) {
    return fail(Errc::kInvalid, "the secret of domain " + secret.name() + " is malformed");
  }
  domain.name = secret.name();
  domain.seed = {secret.hash_seed()};
  std::copy_n(reinterpret_cast<const std::byte*>(secret.digest_key().data()),
              domain.key.bytes.size(), domain.key.bytes.begin());
  return domain;
}

/// The plugin that was built with this program, else the one that nbdkit has installed.
std::string own_plugin() {
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  const auto beside = program.parent_path() / "nbdkit-samepage-plugin.so";
  return !error && std::filesystem::exists(beside, error) ? beside.string() : "samepage";
}

std::uint64_t offered_bytes(const Options& options, const HypervisorFacts& facts) {
  const std::uint64_t limit = options.memory_mib << 20U;
  return limit == 0 ? facts.memory_bytes : std::min(limit, facts.memory_bytes);
}

}  // namespace

Agent::Agent(const Options& options, const Libvirt& libvirt, const Clock& clock)
    : options_(options),
      hypervisor_(libvirt.hypervisor),
      vms_(libvirt.vms),
      clock_(clock),
      reporter_({.watches = {.cpu_share = options.scan_cpu},
                 .memory = {.observes_ksm = options.ksm != "off"},
                 .pressure_folder = pressure_folder(options.pressure_dir)},
                libvirt.hypervisor, clock) {
  add_report_requests();
  add_migration_requests();
  add_store_requests();
  add_disk_requests();
  add_boot_requests();
}

Result<std::unique_ptr<Agent>> Agent::create(const Options& options, const Libvirt& libvirt,
                                             const Clock& clock) {
  std::unique_ptr<Agent> agent(new Agent(options, libvirt, clock));
  agent->desk_ = std::make_unique<TaskQueue>("desk", kTasksMax);
  agent->scanner_ = std::make_unique<TaskQueue>("scanner", kTasksMax);
  for (auto& queue : agent->disk_queues_) queue = std::make_unique<TaskQueue>("disk", kTasksMax);
  if (options.ksm == "manage") {
    agent->ksm_ = TRY(KsmDriver::create(
        {.cpu_share = options.ksm_cpu, .saved_file = options.run_dir + "/ksm.saved"}));
  }
  agent->make_migrations();
  TRY(agent->make_store());
  TRY(agent->make_disks());
  agent->make_boots();
  TRY(agent->observe_guests());
  TRY(agent->open_bus());
  TRY(agent->store_->listen());
  return agent;
}

void Agent::make_migrations() {
  Migrations::Options migrations;
  migrations.socket_dir = options_.run_dir + "/migrate";
  migrations.libvirt_socket = options_.libvirt_socket;
  migrations.data_address = options_.data_address;
  migrations.checkpoints.folder = options_.checkpoint_dir;
  migrations.checkpoints.bytes_max = options_.checkpoint_mib << 20U;
  migrations.images.store.folder = options_.store_dir;
  migrations.warm_bytes = kWarmBytes;
  migrations.hands_off = [this](const VmId& vm) { return reporter_.watches().hold(vm); };
  migrations.expect_template =
      [this](
          const bus::PrepareTarget& request) -> Result<std::unique_ptr<migrator::TemplateArrival>> {
    Boots* const boots = TRY(this->boots());
    return boots->expect(request);
  };
  migrations.disks_of = [this](const VmId& vm) { return DepartingDisks::of_vm(vm, vms_, *disks_); };
  migrations.expect_disks = [this](const VmInfo& vm) {
    return std::make_unique<ComingDisks>(vm, *disks_);
  };
  migrations.copy_discarded = [this](const VmId& vm) { disks_->copy_discarded(vm); };
  Migrations::Notices notices;
  notices.update = [this](const bus::MigrationUpdate& update) {
    bus::Envelope envelope;
    *envelope.mutable_migration_update() = update;
    notify(std::move(envelope));
  };
  notices.outcome = [this](const bus::MigrationOutcome& outcome) {
    bus::Envelope envelope;
    *envelope.mutable_migration_outcome() = outcome;
    notify(std::move(envelope));
  };
  migrations_ =
      std::make_unique<Migrations>(std::move(migrations), hypervisor_, std::move(notices));
}

imagestore::ImageStore::Options Agent::image_store() const {
  return {.folder = options_.store_dir,
          .origin = options_.store_origin,
          .ceph_conf = options_.ceph_conf};
}

std::string Agent::store_socket() const {
  return options_.store_socket.empty() ? options_.run_dir + "/store.sock" : options_.store_socket;
}

Result<void> Agent::make_store() {
  HostStore::Options store;
  store.socket_path = store_socket();
  store.key_file = options_.store_dir + "/domain.key";
  store.node_mib = options_.store_mib;
  store.use_huge_pages = options_.store_huge_pages;
  store.provider = options_.store_provider;
  store.address = options_.data_address;
  std::error_code ignored;  // A folder that cannot be made is said when the socket is opened.
  std::filesystem::create_directories(std::filesystem::path(store.socket_path).parent_path(),
                                      ignored);
  const auto ask = [this](bus::Envelope envelope, Deadline deadline) {
    return bus_->request(std::move(envelope), deadline);
  };
  store_ = TRY(HostStore::create(store, ask, clock_));
  return {};
}

Result<void> Agent::make_disks() {
  Disks::Options disks;
  disks.folder = options_.disks_dir;
  disks.mirrors = options_.mirrors_dir;
  disks.run_dir = options_.run_dir + "/disks";
  disks.store = image_store();
  disks.store_socket = store_socket();
  disks.plugin = options_.nbdkit_plugin.empty() ? own_plugin() : options_.nbdkit_plugin;
  disks.host = options_.data_address;
  disks.mirror_bytes_max = options_.mirrors_mib << 20U;
  disks_ = TRY(Disks::create(std::move(disks), hypervisor_, clock_));
  return {};
}

void Agent::make_boots() {
  Boots::Options boots;
  boots.shelf_folder = migrator::shelf_folder(options_.qemu_conf);
  boots.template_bytes_max = options_.template_mib << 20U;
  boots.store = {.images = image_store(), .agent_socket = store_socket()};
  auto made = Boots::create(
      boots, {.vms = vms_, .hypervisor = hypervisor_, .disks = *disks_, .clock = clock_});
  if (made) {
    boots_ = *std::move(made);
  } else {
    why_no_boots_ = made.error().message();
    log_warning("no boots from templates here why=\"{}\"", why_no_boots_);
  }
  for (unsigned i = 0; i < options_.boots_at_once; ++i) {
    booters_.push_back(std::make_unique<TaskQueue>("booter", kTasksMax));
  }
}

Result<Boots*> Agent::boots() {
  if (boots_ != nullptr) return boots_.get();
  return fail(Errc::kUnavailable, "this host boots nothing from templates: " + why_no_boots_);
}

Result<void> Agent::observe_guests() {
  return hypervisor_.observe([this](const VmEvent& event) {
    migrations_->on_vm_event(event);
    report_soon(event.kind == VmEventKind::kStarted ? Effort::kInTurn : Effort::kAtOnce);
  });
}

Result<void> Agent::open_bus() {
  BusClient::Options bus;
  bus.endpoint = options_.placer;
  bus.keys = TRY(load_curve_keys(options_.key_file));
  bus.server_public_key = TRY(read_placer_key(options_.placer_key_file));
  bus.on_message = [this](BusIncoming incoming) { dispatch(std::move(incoming)); };
  bus.on_connected = [this] { greet_soon(); };
  bus.on_disconnected = [] { log_warning("placer lost"); };
  bus_ = TRY(BusClient::create(std::move(bus)));
  bus_->start();
  return {};
}

void Agent::greet_soon() {
  const bool posted = desk_->post([this] {
    if (const auto said = say_hello(); !said) {
      log_warning("greeting failed why=\"{}\"", said.error().message());
    }
  });
  if (!posted) log_warning("greeting left out, the desk is full");
}

Agent::~Agent() {
  // First nothing new comes in, then what goes on ends while the bus can still tell of it.
  if (const auto ended = hypervisor_.observe({}); !ended) {
    log_warning("events go on why=\"{}\"", ended.error().message());
  }
  if (boots_ != nullptr) boots_->stop();
  if (desk_) desk_->stop();
  reporter_.watches().stop();
  if (scanner_) scanner_->stop();
  for (const auto& queue : disk_queues_) {
    if (queue) queue->stop();
  }
  for (const auto& booter : booters_) booter->stop();
  migrations_.reset();
  if (bus_) bus_->close();  // Whoever waits for the placer in the store's name waits no longer.
  store_.reset();
  bus_.reset();
}

Result<void> Agent::serve(int stop_descriptor) {
  std::string last_trouble;
  while (true) {
    int interval_ms = 0;
    {
      const MutexLock lock(mutex_);
      interval_ms = static_cast<int>(report_interval_.count());
    }
    const std::string trouble = bus_->trouble();
    if (!trouble.empty() && trouble != last_trouble) {
      log_warning("no connection to the placer why=\"{}\"", trouble);
    }
    last_trouble = trouble;

    pollfd stop{.fd = stop_descriptor, .events = POLLIN, .revents = 0};
    const int ready = ::poll(&stop, 1, trouble.empty() ? interval_ms : 1'000);
    if (ready > 0) return {};
    if (trouble.empty()) report_soon(Effort::kInTurn);
  }
}

Result<void> Agent::say_hello() {
  const auto facts = TRY(hypervisor_.facts());
  bus::Envelope envelope;
  bus::Hello& hello = *envelope.mutable_hello();
  hello.set_agent_version(kVersion);
  hello.set_hypervisor_version(facts.hypervisor_version);
  hello.set_library_version(facts.library_version);
  hello.set_memory_bytes(offered_bytes(options_, facts));
  hello.set_cpus(static_cast<std::uint32_t>(facts.cpus));
  hello.set_data_address(options_.data_address);
  hello.set_hardware(options_.hardware.empty() ? processor_model() : options_.hardware);
  constexpr std::uint64_t kBytesPerMbit = 125'000;
  hello.set_link_bytes_per_s(options_.link_mbit * kBytesPerMbit);
  hello.set_boots_at_once(options_.boots_at_once);
  const auto reply = TRY(bus_->request(std::move(envelope), clock_.now() + kHelloAnswerMax));
  take_welcome(reply.welcome());
  reporter_.send_whole();
  log_info("placer greeted host={} report_interval_ms={}", reply.welcome().host(),
           reply.welcome().report_interval_ms());
  report_soon(Effort::kInTurn);
  return {};
}

void Agent::take_welcome(const bus::Welcome& welcome) {
  Domains domains;
  for (const bus::DomainSecret& secret : welcome.domains()) {
    auto domain = read_domain(secret);
    if (!domain) {
      log_warning("sharing domain left out why=\"{}\"", domain.error().message());
      continue;
    }
    domains.emplace(domain->name, *domain);
  }
  store_->set_welcome(welcome.host(), domains);
  std::vector<SharingDomain> known;
  for (const auto& [name, domain] : domains) known.push_back(domain);
  migrations_->learn_images(known);
  const MutexLock lock(mutex_);
  domains_ = std::move(domains);
  report_interval_ = std::chrono::milliseconds(
      std::clamp<std::uint32_t>(welcome.report_interval_ms(), 1'000, 86'400'000));
}

void Agent::dispatch(BusIncoming incoming) {
  TaskQueue& queue = queue_for(incoming.envelope());
  // std::function wants copies; the message itself is moved only once.
  auto shared = std::make_shared<BusIncoming>(std::move(incoming));
  const bool posted =
      queue.post([this, shared] { shared->answer(requests_.answer(shared->envelope())); });
  if (!posted) shared->answer(fail(Errc::kUnavailable, "the agent has too much to do"));
}

TaskQueue& Agent::queue_for(const bus::Envelope& request) {
  switch (requests_.queue_of(request)) {
    case RequestTable::Queue::kScanner:
      return *scanner_;
    case RequestTable::Queue::kDisks: {
      const std::size_t hash = std::hash<std::string>()(request.disk_request().name());
      return *disk_queues_.at(hash % disk_queues_.size());
    }
    case RequestTable::Queue::kBoots:
      return *booters_[next_booter_++ % booters_.size()];
    case RequestTable::Queue::kDesk:
      break;
  }
  return *desk_;
}

void Agent::add_report_requests() {
  using Body = bus::Envelope::BodyCase;
  requests_.add(Body::kWelcome, [this](const bus::Envelope& request) -> Result<bus::Envelope> {
    take_welcome(request.welcome());
    reporter_.send_whole();
    report_soon(Effort::kInTurn);
    return done();
  });
  requests_.add(
      Body::kReportNow,
      [this](const bus::Envelope& request) {
        if (request.report_now().whole()) reporter_.send_whole();
        return answer_report(request.report_now().at_once() ? Effort::kAtOnce : Effort::kScan);
      },
      RequestTable::Queue::kScanner);
  requests_.add(Body::kListVms, [this](const bus::Envelope&) -> Result<bus::Envelope> {
    bus::Envelope reply;
    *reply.mutable_vm_list() = TRY(reporter_.list());
    for (const std::string& session : migrations_->sessions()) {
      reply.mutable_vm_list()->add_sessions(session);
    }
    return reply;
  });
}

void Agent::add_migration_requests() {
  using Body = bus::Envelope::BodyCase;
  requests_.add(Body::kPrepareTarget,
                [this](const bus::Envelope& request) -> Result<bus::Envelope> {
                  const auto domain_of = TRY(domain(request.prepare_target().sharing_domain()));
                  bus::Envelope reply;
                  *reply.mutable_target_ready() =
                      TRY(migrations_->prepare(request.prepare_target(), domain_of));
                  return reply;
                });
  requests_.add(Body::kStartMigration,
                [this](const bus::Envelope& request) -> Result<bus::Envelope> {
                  const auto domain_of = TRY(domain(request.start_migration().sharing_domain()));
                  TRY(migrations_->start(request.start_migration(), domain_of));
                  return done();
                });
  requests_.add(Body::kCancelMigration,
                [this](const bus::Envelope& request) -> Result<bus::Envelope> {
                  TRY(migrations_->cancel(request.cancel_migration().session()));
                  return done();
                });
  requests_.add(Body::kQueryMigration,
                [this](const bus::Envelope& request) -> Result<bus::Envelope> {
                  bus::Envelope reply;
                  *reply.mutable_migration_outcome() =
                      TRY(migrations_->query(request.query_migration().session()));
                  return reply;
                });
  requests_.add(Body::kSettleVm, [this](const bus::Envelope& request) {
    return answer_settle(request.settle_vm());
  });
}

void Agent::add_boot_requests() {
  using Body = bus::Envelope::BodyCase;
  const auto add = [this](Body body, RequestTable::Answer answer) {
    requests_.add(body, std::move(answer), RequestTable::Queue::kBoots);
  };
  add(Body::kMakeTemplate, [this](const bus::Envelope& request) -> Result<bus::Envelope> {
    Boots* const boots = TRY(this->boots());
    bus::Envelope reply;
    *reply.mutable_template_info() = TRY(boots->make(request.make_template()));
    return reply;
  });
  add(Body::kListTemplates, [this](const bus::Envelope& request) -> Result<bus::Envelope> {
    Boots* const boots = TRY(this->boots());
    bus::Envelope reply;
    *reply.mutable_template_list() = TRY(boots->list(request.list_templates()));
    return reply;
  });
  add(Body::kRemoveTemplate, [this](const bus::Envelope& request) -> Result<bus::Envelope> {
    Boots* const boots = TRY(this->boots());
    TRY(boots->remove(request.remove_template()));
    return done();
  });
  add(Body::kFetchTemplate, [this](const bus::Envelope& request) -> Result<bus::Envelope> {
    Boots* const boots = TRY(this->boots());
    bus::Envelope reply;
    *reply.mutable_template_info() = TRY(boots->fetch(request.fetch_template()));
    return reply;
  });
  add(Body::kBootVm, [this](const bus::Envelope& request) -> Result<bus::Envelope> {
    Boots* const boots = TRY(this->boots());
    bus::Envelope reply;
    *reply.mutable_booted_vm() = TRY(boots->boot(request.boot_vm()));
    return reply;
  });
  add(Body::kWakeVm, [this](const bus::Envelope& request) -> Result<bus::Envelope> {
    Boots* const boots = TRY(this->boots());
    TRY(boots->wake(request.wake_vm()));
    return done();
  });
  add(Body::kEndVm, [this](const bus::Envelope& request) -> Result<bus::Envelope> {
    Boots* const boots = TRY(this->boots());
    TRY(boots->end(request.end_vm()));
    return done();
  });
}

void Agent::add_store_requests() {
  using Body = bus::Envelope::BodyCase;
  requests_.add(Body::kStoreRequest, [this](const bus::Envelope& request) {
    return store_->serve_host(request.store_request());
  });
  requests_.add(Body::kStoreRing, [this](const bus::Envelope& request) -> Result<bus::Envelope> {
    store_->set_ring(request.store_ring());
    return done();
  });
}

void Agent::add_disk_requests() {
  requests_.add(
      bus::Envelope::kDiskRequest,
      [this](const bus::Envelope& request) -> Result<bus::Envelope> {
        bus::Envelope reply;
        *reply.mutable_disk_reply() = TRY(disks_->answer(request.disk_request()));
        return reply;
      },
      RequestTable::Queue::kDisks);
}

Result<bus::Envelope> Agent::answer_report(Effort effort) {
  Domains domains;
  {
    const MutexLock lock(mutex_);
    domains = domains_;
  }
  bus::Envelope reply;
  *reply.mutable_host_report() = TRY(reporter_.report(domains, effort));
  if (ksm_ && effort != Effort::kAtOnce) {
    const auto followed = ksm_->follow(reporter_.ksm_news());
    if (!followed) log_warning("ksm not paced why=\"{}\"", followed.error().message());
  }
  return reply;
}

Result<bus::Envelope> Agent::answer_settle(const bus::SettleVm& request) {
  const VmId vm{request.vm_uuid()};
  switch (request.verdict()) {
    case bus::SettleVm::RESUME:
      TRY(migrations_->settle(vm, migrator::Verdict::kResume));
      return done();
    case bus::SettleVm::DISCARD:
      TRY(migrations_->settle(vm, migrator::Verdict::kDiscard));
      return done();
    default:
      return fail(Errc::kInvalid, "a verdict is to resume or to discard");
  }
}

void Agent::report_soon(Effort effort) {
  std::atomic<bool>& waits = report_posted_.at(static_cast<std::size_t>(effort));
  if (waits.exchange(true)) return;
  const bool posted = scanner_->post([this, effort, &waits] {
    waits = false;
    auto report = answer_report(effort);
    if (!report) {
      log_warning("report left out why=\"{}\"", report.error().message());
      return;
    }
    notify(*std::move(report));
    bus::Envelope store;
    *store.mutable_store_report() = store_->take_report();
    notify(std::move(store));
  });
  if (!posted) {
    waits = false;
    log_warning("report left out, the scanner is behind");
  }
}

Result<SharingDomain> Agent::domain(const std::string& name) {
  const MutexLock lock(mutex_);
  const auto found = domains_.find(name);
  if (found == domains_.end()) {
    return fail(Errc::kUnavailable, "this agent has no secret for sharing domain " + name + " yet");
  }
  return found->second;
}

void Agent::notify(bus::Envelope envelope) {
  // Lost notices are mended: the placer asks, and reports come again.
  [[maybe_unused]] const auto sent = bus_->send(std::move(envelope));
}

}  // namespace samepage::agent
