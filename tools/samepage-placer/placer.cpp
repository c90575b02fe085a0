#include "tools/samepage-placer/placer.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>
#include <utility>

#include "core/curve_keys.h"
#include "core/log.h"

namespace samepage::control {
namespace {

constexpr std::size_t kInboxMax = 4'096;
constexpr std::size_t kScansAtOnce = 16;
constexpr const char* kDefaultDomain = "default";
constexpr auto kStopRetry = std::chrono::milliseconds(50);

placer::Roster::Options roster_options(const Options& options) {
  placer::Roster::Options roster;
  // A host may miss two reports; its connection is watched by heartbeats in between.
  roster.report_age_max = std::chrono::seconds(30 + 3 * std::int64_t{options.report_interval_s});
  roster.usage_gap_min = std::chrono::milliseconds(std::int64_t{options.report_interval_s} * 500);
  return roster;
}

Result<void> publish_key(const std::string& path, const std::string& public_key) {
  std::ofstream file(path, std::ios::trunc);
  file << public_key << '\n';
  file.flush();
  if (!file) return fail(Errc::kIo, "cannot write " + path);
  return {};
}

bus::DomainSecret secret_of(const SharingDomain& domain) {
  bus::DomainSecret secret;
  secret.set_name(domain.name);
  secret.set_hash_seed(domain.seed.value);
  secret.set_digest_key(domain.key.bytes.data(), domain.key.bytes.size());
  return secret;
}

}  // namespace

Placer::Placer(const Options& options, const Clock& clock)
    : options_(options),
      clock_(clock),
      ledger_path_(options.state_dir + "/placer.db"),
      fleet_(roster_options(options), clock) {}

Result<std::unique_ptr<Placer>> Placer::create(const Options& options, const Clock& clock) {
  std::error_code error;
  std::filesystem::create_directories(options.state_dir, error);
  if (error) return fail(Errc::kIo, "cannot make " + options.state_dir + ": " + error.message());

  std::unique_ptr<Placer> placer(new Placer(options, clock));
  placer->ledger_ = TRY(placer->open_ledger());
  BusServer::Options bus;
  bus.endpoint = options.bind;
  bus.keys = TRY(load_or_make_curve_keys(options.state_dir + "/placer.key"));
  TRY(publish_key(options.state_dir + "/placer.pub", bus.keys.public_key));
  bus.on_message = [self = placer.get()](BusIncoming incoming) {
    auto shared = std::make_shared<BusIncoming>(std::move(incoming));
    if (shared->envelope().has_store_request()) {
      self->store_relay_->pass_on(std::move(shared));
      return;
    }
    if (!self->inbox_->post([self, shared] { self->handle(*shared); })) {
      shared->answer(fail(Errc::kUnavailable, "the placer has too much to do; try again"));
    }
  };
  bus.on_disconnected = [self = placer.get()](const std::string& host) {
    log_warning("host lost host={}", host);
    self->fleet_.lost(host);
  };
  placer->inbox_ = std::make_unique<TaskQueue>("inbox", kInboxMax);
  placer->bus_ = TRY(BusServer::create(std::move(bus)));
  placer->stores_ = TRY(StoreDirectory::open(options.state_dir + "/store.db", clock));
  placer->store_relay_ = std::make_unique<StoreRelay>(*placer->bus_, clock);
  placer->carrier_ = std::make_unique<BusCarrier>(*placer->bus_, placer->fleet_);
  placer->runner_ = TRY(PlanRunner::create({.ledger_path = placer->ledger_path_,
                                            .fleet = placer->fleet_,
                                            .carrier = *placer->carrier_,
                                            .bell = placer->bell_,
                                            .clock = clock}));
  placer->steward_ = TRY(Steward::create({.ledger_path = placer->ledger_path_,
                                          .fleet = placer->fleet_,
                                          .runner = *placer->runner_,
                                          .bell = placer->bell_,
                                          .clock = clock}));
  placer->templates_ = std::make_unique<Templates>(*placer->bus_, placer->fleet_);
  placer->storms_ =
      std::make_unique<Storms>(*placer->bus_, placer->fleet_, *placer->templates_, clock);
  placer->standbys_ =
      TRY(Standbys::create({.path = options.state_dir + "/standbys.db",
                            .fence_command = options.fence_command,
                            .fence_after = std::chrono::seconds(options.fence_after_s)},
                           *placer->bus_, placer->fleet_, *placer->storms_, clock));
  // Only now may hosts speak: everything that their messages reach is there.
  TRY(placer->restore());
  log_info("placer started endpoint={} public_key_file={}/placer.pub", placer->bus_->endpoint(),
           options.state_dir);
  return placer;
}

Placer::~Placer() {
  if (inbox_) inbox_->stop();
  steward_.reset();
  runner_.reset();
  if (bus_) bus_->close();  // The relay's threads wait for it, and its own reach the relay.
  store_relay_.reset();
  standbys_.reset();
  storms_.reset();
  templates_.reset();
  bus_.reset();
}

Result<std::unique_ptr<Ledger>> Placer::open_ledger() const {
  return Ledger::open(ledger_path_, clock_);
}

Result<void> Placer::restore() {
  TRY(ledger_->registry().domain(kDefaultDomain));
  TRY(refresh_domains(*ledger_));
  for (const placer::EnrolledHost& host : TRY(ledger_->registry().hosts())) {
    TRY(fleet_.enroll(host.name));
    TRY(bus_->enroll(host.name, host.public_key));
  }
  fleet_.set_labels(TRY(ledger_->policies().labels()));
  fleet_.restore(TRY(ledger_->usage().all()));
  return {};
}

Result<void> Placer::set_label(const std::string& host, const std::string& label,
                               const std::string& value, Ledger& ledger) {
  TRY(ledger.policies().set_label(host, label, value));
  fleet_.set_labels(TRY(ledger.policies().labels()));
  return {};
}

Result<void> Placer::keep_samples(Ledger& ledger) {
  const MutexLock lock(keeping_);
  TRY(ledger.usage().add(fleet_.take_samples()));
  return ledger.memory().add(fleet_.take_memory_samples());
}

// The inbox's ledger is its thread's.
Result<void> Placer::keep_asked_samples() {
  const auto ledger = TRY(open_ledger());
  return keep_samples(*ledger);
}

Result<void> Placer::refresh_domains(Ledger& ledger) {
  std::set<std::string> names;
  for (const SharingDomain& domain : TRY(ledger.registry().domains())) names.insert(domain.name);
  fleet_.set_domains(names);
  return {};
}

Result<void> Placer::enroll(const std::string& host, const std::string& public_key) {
  const auto ledger = TRY(open_ledger());
  TRY(ledger->registry().enroll(host, public_key));
  TRY(fleet_.enroll(host));
  TRY(bus_->enroll(host, public_key));
  log_info("host enrolled host={}", host);
  return {};
}

Result<void> Placer::forget(const std::string& host) {
  const auto ledger = TRY(open_ledger());
  TRY(fleet_.forget(host));
  TRY(ledger->registry().forget(host));
  TRY(bus_->forget(host));
  TRY(stores_->forget(host));
  send_ring_to_all();
  log_info("host forgotten host={}", host);
  return {};
}

Result<void> Placer::stop_move(placer::PlanId id, Ledger& ledger, Deadline deadline) {
  std::set<std::string> told;  // Sessions.
  for (;;) {
    const placer::PlanRecord plan = TRY(ledger.journal().plan(id));
    Result<void> untold;
    for (const placer::MoveRecord& move : plan.moves) {
      if (move.state != placer::MoveState::kRunning || told.contains(move.session)) continue;
      placer::MoveOrder order;
      order.session = move.session;
      order.source = move.move.source;
      auto stopped = carrier_->cancel(order, deadline);
      if (stopped) told.insert(move.session);
      if (!stopped && stopped.error().code() != Errc::kNotFound) return stopped;
      if (!stopped) untold = std::move(stopped);
    }
    // It is being prepared, or ends just now.
    if (untold || Deadline::clock::now() >= deadline) return untold;
    std::this_thread::sleep_for(kStopRetry);
  }
}

Placer::ScanResult Placer::ask_hosts(Freshness freshness, Deadline deadline) {
  const placer::Fleet fleet = fleet_.fleet();
  std::vector<Result<void>> results(fleet.hosts.size());
  std::atomic<std::size_t> next = 0;
  const auto work = [&] {
    for (std::size_t i = next++; i < results.size(); i = next++) {
      results[i] = ask_host(fleet.hosts[i].name, freshness, deadline);
    }
  };
  {
    std::vector<std::jthread> workers;
    for (std::size_t i = 0; i < std::min(kScansAtOnce, results.size()); ++i) {
      workers.emplace_back(work);
    }
  }
  ScanResult scan;
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (results[i]) {
      ++scan.hosts;
    } else {
      scan.failed.push_back({fleet.hosts[i].name, results[i].error().message()});
    }
  }
  if (const auto kept = keep_asked_samples(); !kept) {
    log_warning("usage not kept why=\"{}\"", kept.error().message());
  }
  return scan;
}

Result<void> Placer::ask_host(const std::string& host, Freshness freshness, Deadline deadline) {
  bus::Envelope envelope;
  envelope.mutable_report_now()->set_at_once(freshness == Freshness::kStates);
  const auto reply = TRY(bus_->request(host, envelope, deadline));
  TRY(fleet_.report(host, reply.host_report()));
  if (!fleet_.wants_whole(host)) return {};
  envelope.mutable_report_now()->set_at_once(true);
  envelope.mutable_report_now()->set_whole(true);
  const auto whole = TRY(bus_->request(host, std::move(envelope), deadline));
  TRY(fleet_.report(host, whole.host_report()));
  return {};
}

Result<bus::DiskReply> Placer::ask_disk(const std::string& host, const bus::DiskRequest& request,
                                        Deadline deadline) {
  if (fleet_.fleet().find_host(host) == nullptr) {
    return fail(Errc::kNotFound, "no host " + host + "; `samepage hosts` lists them");
  }
  bus::Envelope envelope;
  *envelope.mutable_disk_request() = request;
  const bus::Envelope reply = TRY(bus_->request(host, std::move(envelope), deadline));
  return reply.disk_reply();
}

void Placer::handle(BusIncoming& incoming) {
  const bus::Envelope& message = incoming.envelope();
  switch (message.body_case()) {
    case bus::Envelope::kHello:
      incoming.answer(greet(incoming.host(), message.hello()));
      return;
    case bus::Envelope::kHostReport:
      take_report(incoming.host(), message.host_report());
      return;
    case bus::Envelope::kMigrationUpdate:
      carrier_->on_update(message.migration_update());
      return;
    case bus::Envelope::kMigrationOutcome:
      carrier_->on_outcome(message.migration_outcome());
      return;
    case bus::Envelope::kStoreReport:
      if (stores_->take_report(incoming.host(), message.store_report())) send_ring_to_all();
      return;
    case bus::Envelope::kWarmQuery: {
      bus::Envelope reply;
      *reply.mutable_warm_hosts() =
          stores_->warm_hosts(message.warm_query().version(), incoming.host());
      incoming.answer(std::move(reply));
      return;
    }
    default:
      log_warning("message of an unknown kind left out host={}", incoming.host());
  }
}

Result<bus::Envelope> Placer::greet(const std::string& host, const bus::Hello& hello) {
  TRY(fleet_.hello(host, hello));
  bus::Envelope reply;
  *reply.mutable_welcome() = TRY(welcome(host, *ledger_));
  log_info("host greeted host={} agent=\"{}\" hypervisor=\"{}\" address={}", host,
           hello.agent_version(), hello.hypervisor_version(), hello.data_address());
  send_ring(host);
  return reply;
}

Result<bus::Welcome> Placer::welcome(const std::string& host, Ledger& ledger) {
  bus::Welcome welcome;
  welcome.set_host(host);
  welcome.set_report_interval_ms(options_.report_interval_s * 1'000);
  for (const SharingDomain& domain : TRY(ledger.registry().domains())) {
    *welcome.add_domains() = secret_of(domain);
  }
  return welcome;
}

void Placer::take_report(const std::string& host, const bus::HostReport& report) {
  if (const auto made = make_domains(host, report); !made) {
    log_warning("sharing domain not made host={} why=\"{}\"", host, made.error().message());
  }
  const auto notes = fleet_.report(host, report);
  if (!notes) {
    log_warning("report refused host={} why=\"{}\"", host, notes.error().message());
    return;
  }
  if (fleet_.wants_whole(host)) ask_whole(host);
  if (const auto kept = ledger_->sharing().note(fleet_.fleet(), host); !kept) {
    log_warning("sharing not kept host={} why=\"{}\"", host, kept.error().message());
  }
  for (const std::string& note : *notes) log_warning("report odd host={} what=\"{}\"", host, note);
  if (const auto kept = keep_samples(*ledger_); !kept) {
    log_warning("usage not kept why=\"{}\"", kept.error().message());
  }
  if (const auto noted = runner_->note_sharing(*ledger_); !noted) {
    log_warning("achieved sharing not kept why=\"{}\"", noted.error().message());
  }
}

// A greeting makes an agent tell everything; its answer is a report like any other.
void Placer::ask_whole(const std::string& host) {
  bus::Envelope envelope;
  auto greeting = welcome(host, *ledger_);
  if (!greeting) return log_warning("fingerprints not asked for host={}", host);
  *envelope.mutable_welcome() = *std::move(greeting);
  log_info("fingerprints asked for host={} why=\"a delta for one that is not here\"", host);
  if (!bus_->send(host, std::move(envelope))) log_debug("welcome left out host={}", host);
}

Result<void> Placer::make_domains(const std::string& host, const bus::HostReport& report) {
  std::set<std::string> known;
  for (const SharingDomain& domain : TRY(ledger_->registry().domains())) known.insert(domain.name);
  const std::size_t before = known.size();
  for (const bus::Vm& vm : report.vms()) {
    if (known.contains(vm.sharing_domain())) continue;
    TRY(ledger_->registry().domain(vm.sharing_domain()));
    known.insert(vm.sharing_domain());
    log_info("sharing domain made domain={} host={} vm={}", vm.sharing_domain(), host, vm.name());
  }
  if (known.size() == before) return {};
  TRY(refresh_domains(*ledger_));
  // Everyone learns the new secret, so that the domain's VMs can share and move.
  for (const placer::EnrolledHost& other : TRY(ledger_->registry().hosts())) {
    bus::Envelope envelope;
    *envelope.mutable_welcome() = TRY(welcome(other.name, *ledger_));
    const auto sent = bus_->send(other.name, std::move(envelope));
    if (!sent) log_debug("welcome left out host={}", other.name);
  }
  return {};
}

Result<void> Placer::join_store(const imagestore::RingMember& member) {
  const auto before = stores_->ring();
  const auto ring = TRY(stores_->join(member));
  log_info("store node joined node={} weight={} rack=\"{}\" slots_moved={}", member.node,
           member.weight, member.rack, ring.moved_from(before));
  send_ring_to_all();
  return {};
}

Result<void> Placer::leave_store(const std::string& node) {
  const auto before = stores_->ring();
  const auto ring = TRY(stores_->leave(node));
  log_info("store node left node={} slots_moved={}", node, ring.moved_from(before));
  send_ring_to_all();
  return {};
}

void Placer::send_ring(const std::string& host) {
  bus::Envelope envelope;
  *envelope.mutable_store_ring() = stores_->message();
  for (const placer::Host& known : fleet_.fleet().hosts) {
    envelope.mutable_store_ring()->add_hosts(known.name);
  }
  // A host that is away is told when it greets again.
  if (const auto sent = bus_->send(host, std::move(envelope)); !sent) {
    log_debug("ring left out host={}", host);
  }
}

void Placer::send_ring_to_all() {
  for (const placer::Host& host : fleet_.fleet().hosts) send_ring(host.name);
}

}  // namespace samepage::control
