#include "tools/samepaged/migrations.h"

#include <algorithm>
#include <atomic>
#include <future>
#include <utility>

#include <sys/resource.h>
#include <unistd.h>

#include "core/log.h"
#include "migrator/guest_watch.h"
#include "migrator/relay_source.h"
#include "migrator/relay_target.h"
#include "migrator/stream_slab.h"

namespace samepage::agent {
namespace {

constexpr int kGiveWay = 10;  // nice(1)
constexpr std::chrono::seconds kTargetPatience{60};
constexpr std::chrono::seconds kSupersedeMax{1};

using migrator::RelayEnds;
using migrator::RelayHalf;
using migrator::RelayHalfOf;

Result<migrator::SessionSecret> read_secret(const std::string& bytes) {
  migrator::SessionSecret secret;
  if (bytes.size() != secret.bytes.size()) {
    return fail(Errc::kInvalid, "a session's secret has 32 bytes");
  }
  std::copy_n(reinterpret_cast<const std::byte*>(bytes.data()), secret.bytes.size(),
              secret.bytes.begin());
  return secret;
}

Result<std::chrono::seconds> time_max(std::uint64_t seconds) {
  const auto most = static_cast<std::uint64_t>(MigrateMode::kTimeMax.count());
  if (seconds > most) return fail(Errc::kInvalid, "a migration may not take so long");
  return std::chrono::seconds(seconds);
}

template <class Relay>
Result<std::unique_ptr<RelayHalf>> as_half(Result<std::unique_ptr<Relay>> relay) {
  if (!relay) return tl::unexpected(std::move(relay).error());
  return std::make_unique<RelayHalfOf<Relay>>(*std::move(relay));
}

/// The target's half of the relay, with the index of the host's pages that it looks into.
class IndexedTarget final : public RelayHalf {
 public:
  IndexedTarget(std::shared_ptr<pagecache::PageCache> index, std::unique_ptr<RelayHalf> relay)
      : index_(std::move(index)), relay_(std::move(relay)) {}

  Result<void> run() override { return relay_->run(); }
  void stop() override { relay_->stop(); }
  migrator::RelayCounters counters() const override { return relay_->counters(); }
  bool delivered() const override { return relay_->delivered(); }

 private:
  const std::shared_ptr<pagecache::PageCache> index_;
  const std::unique_ptr<RelayHalf> relay_;
};

migrator::MakeRelay source_relay(const SharingDomain& domain, const migrator::SessionSecret& secret,
                                 std::shared_ptr<DepartingPages> sink) {
  return [domain, secret, sink = std::move(sink)](RelayEnds ends) {
    return as_half(migrator::RelaySource::create({}, ends, domain, secret, sink.get()));
  };
}

/// How the relay of a VM that arrives finds pages on this host.
struct Arrival {
  Hypervisor& hypervisor;
  ArrivingVm vm;
  SharingDomain domain;
  migrator::SessionSecret secret;
};

/// The stream can be sieved only as a whole.
Result<std::unique_ptr<migrator::TemplateSieve>> sieve_of(const Arrival& arrival,
                                                          std::atomic<bool>& has_stream) {
  if (arrival.vm.on_template == nullptr) return nullptr;
  if (has_stream.exchange(true)) {
    return fail(Errc::kInvalid, "a guest on its template comes in one stream, not in several");
  }
  auto sieve = arrival.vm.on_template->sieve(arrival.hypervisor);
  const std::string& name = arrival.vm.on_template->shelved().state.name;
  if (sieve) {
    log_info("template mapped vm={} template={}", arrival.vm.id.uuid, name);
    return sieve;
  }
  log_warning("template not mapped vm={} template={} why=\"{}\"", arrival.vm.id.uuid, name,
              sieve.error().message());
  return nullptr;
}

/// Indexes the host's pages at once, while libvirt prepares the VM, and has the result ready when
/// the stream begins.
migrator::MakeRelay target_relay(const Arrival& arrival, const KeptPages& kept) {
  std::shared_future<Result<HostIndex>> index =
      std::async(std::launch::async, [arrival, kept] {
        return index_pages(arrival.hypervisor, kept, arrival.vm, arrival.domain);
      }).share();
  auto has_stream = std::make_shared<std::atomic<bool>>(false);
  return [arrival, index, has_stream](RelayEnds ends) -> Result<std::unique_ptr<RelayHalf>> {
    const HostIndex found = TRY(Result<HostIndex>(index.get()));
    migrator::TargetPages pages(*found.pages, found.base);
    pages.sieve = TRY(sieve_of(arrival, *has_stream));
    auto relay = as_half(
        migrator::RelayTarget::create({}, ends, std::move(pages), arrival.domain, arrival.secret));
    if (!relay) return relay;
    return std::make_unique<IndexedTarget>(found.pages, *std::move(relay));
  };
}

/// For this thread: whatever else there is to do goes first.
void give_way() {
  static_cast<void>(::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kGiveWay));
}

bus::MigrationOutcome::Side side(migrator::Side side) {
  switch (side) {
    case migrator::Side::kSource:
      return bus::MigrationOutcome::SOURCE;
    case migrator::Side::kTarget:
      return bus::MigrationOutcome::TARGET;
    case migrator::Side::kUnknown:
      break;
  }
  return bus::MigrationOutcome::UNKNOWN;
}

void put_counters(const migrator::RelayCounters& relay, std::uint64_t wire_bytes,
                  bus::MigrationOutcome& figures) {
  figures.set_stream_bytes(relay.stream_bytes);
  figures.set_wire_bytes(wire_bytes);
  figures.set_page_refs(relay.page_refs);
  figures.set_page_literals(relay.page_literals);
  figures.set_zero_pages(relay.zero_pages);
  figures.set_pages_resent(relay.pages_resent);
  figures.set_template_pages(relay.template_pages);
}

}  // namespace

Migrations::Migrations(Options options, Hypervisor& hypervisor, Notices notices)
    : options_(std::move(options)),
      hypervisor_(hypervisor),
      notices_(std::move(notices)),
      checkpoints_(options_.checkpoints),
      images_(options_.images) {
  const std::size_t slabs = options_.warm_bytes / migrator::SlabPool::kSlabBytes;
  if (slabs == 0) return;
  warming_up_ = std::jthread([slabs](const std::stop_token& stop) {
    give_way();
    migrator::SlabPool::warm_up(slabs, stop);
  });
}

Migrations::~Migrations() {
  for (const auto& session : live()) {
    if (session->source) session->source->cancel();
  }
  if (!wait_for_end(std::chrono::steady_clock::now() + options_.leave_max,
                    [](const Session&) { return true; })) {
    for (const auto& session : live()) {
      if (session->source) session->source->abandon();
      if (session->target) session->target->abandon();
    }
  }
  std::map<std::string, std::shared_ptr<Session>> last;
  {
    const MutexLock lock(mutex_);
    last.swap(sessions_);
  }
  // Joins every thread, which needs the mutex to end.
  last.clear();
  std::jthread images;
  {
    const MutexLock lock(mutex_);
    images = std::move(images_thread_);
  }
}

void Migrations::learn_images(const std::vector<SharingDomain>& domains) {
  const MutexLock lock(mutex_);
  if (std::exchange(learns_images_, true)) return;
  images_thread_ = std::jthread([this, domains](const std::stop_token& stop) {
    give_way();
    for (const SharingDomain& domain : domains) {
      const auto learned = images_.refresh(domain, stop);
      if (!learned && learned.error().code() != Errc::kNotFound) {
        log_warning("images left out of the index domain={} why=\"{}\"", domain.name,
                    learned.error().message());
      }
    }
    const MutexLock done(mutex_);
    learns_images_ = false;
  });
}

Result<bus::TargetReady> Migrations::prepare(const bus::PrepareTarget& request,
                                             const SharingDomain& domain) {
  const auto secret = TRY(read_secret(request.secret()));
  end_waiting_arrivals(VmId{request.vm_uuid()});
  const MutexLock lock(mutex_);
  TRY(check_room(request.session(), VmId{request.vm_uuid()}));
  auto session = std::make_shared<Session>();
  session->vm = VmId{request.vm_uuid()};
  // What is written by now is what it finds.
  const auto [first, last] = departed_.equal_range(session->vm);
  std::for_each(first, last, [](const auto& entry) { entry.second->stop(); });
  if (options_.hands_off) session->untouched = options_.hands_off(session->vm);
  migrator::TargetOptions options;
  options.session = request.session();
  options.secret = secret;
  options.vm = session->vm;
  options.listen_address = options_.data_address;
  options.socket_dir = options_.socket_dir;
  options.libvirt_socket = options_.libvirt_socket;
  // It must not be the first to lose patience.
  if (request.time_max_s() > 0) {
    options.total_max = TRY(time_max(request.time_max_s())) + kTargetPatience;
  }
  session->on_template = expect_template(request);
  if (options_.expect_disks) {
    session->coming_disks = options_.expect_disks({.id = session->vm, .name = request.vm_name()});
    options.expect_disk = [coming = session->coming_disks.get()](std::span<const std::byte> offer) {
      return coming->expect(offer);
    };
  }
  const Arrival arrival{.hypervisor = hypervisor_,
                        .vm = {.id = session->vm, .on_template = session->on_template},
                        .domain = domain,
                        .secret = secret};
  session->target = TRY(migrator::TargetMigration::create(
      std::move(options), hypervisor_, target_relay(arrival, {checkpoints_, images_})));

  bus::TargetReady ready;
  ready.set_address(options_.data_address);
  ready.set_port(session->target->port());
  sessions_.emplace(request.session(), session);
  // The thread borrows the session: an owner on its own thread would have to join itself.
  session->thread = std::jthread(
      [this, name = request.session(), borrowed = session.get()] { run_target(name, *borrowed); });
  return ready;
}

/// A placer that died between its orders to the two hosts has left one here that nobody comes to.
void Migrations::end_waiting_arrivals(const VmId& vm) {
  bool found = false;
  for (const auto& session : live()) {
    if (session->vm != vm || !session->target) continue;
    session->target->supersede();
    found = true;
  }
  const auto is_meant = [&vm](const Session& session) { return session.vm == vm; };
  if (found) wait_for_end(std::chrono::steady_clock::now() + kSupersedeMax, is_meant);
}

std::shared_ptr<const migrator::TemplateArrival> Migrations::expect_template(
    const bus::PrepareTarget& request) const {
  if (request.template_id().empty() || !options_.expect_template) return nullptr;
  auto arrival = options_.expect_template(request);
  if (arrival) return *std::move(arrival);
  log_info("comes without its template vm={} why=\"{}\"", request.vm_name(),
           arrival.error().message());
  return nullptr;
}

Result<void> Migrations::start(const bus::StartMigration& request, const SharingDomain& domain) {
  const auto secret = TRY(read_secret(request.secret()));
  if (request.target_port() > UINT16_MAX) return fail(Errc::kInvalid, "there is no such port");
  TRY(hypervisor_.check_migratable(VmId{request.vm_uuid()}));
  std::unique_ptr<DepartingDisks> disks;
  if (options_.disks_of) disks = TRY(options_.disks_of(VmId{request.vm_uuid()}));
  const MutexLock lock(mutex_);
  TRY(check_room(request.session(), VmId{request.vm_uuid()}));
  migrator::LeavingDiskList leaving;
  if (disks) leaving = TRY(disks->leave());
  auto session = std::make_shared<Session>();
  session->vm = VmId{request.vm_uuid()};
  session->domain = domain;
  session->figures.set_session(request.session());
  session->figures.set_goes_on(true);
  if (options_.hands_off) session->untouched = options_.hands_off(session->vm);
  migrator::SourceOptions options;
  options.session = request.session();
  options.secret = secret;
  options.vm = session->vm;
  options.target_address = request.target_address();
  options.target_port = static_cast<std::uint16_t>(request.target_port());
  options.mode = {.streams = request.streams(), .postcopy = request.postcopy()};
  if (request.time_max_s() > 0) options.total_max = TRY(time_max(request.time_max_s()));
  options.socket_dir = options_.socket_dir;
  session->departing = take_pages(domain);
  auto source = migrator::SourceMigration::create(std::move(options), hypervisor_,
                                                  source_relay(domain, secret, session->departing),
                                                  std::move(leaving));
  if (!source && disks) disks->ended(migrator::Side::kSource);
  session->source = TRY(std::move(source));
  session->departing_disks = std::move(disks);
  sessions_.emplace(request.session(), session);
  session->thread = std::jthread(
      [this, name = request.session(), borrowed = session.get()] { run_source(name, *borrowed); });
  return {};
}

Result<void> Migrations::cancel(const std::string& session) {
  const MutexLock lock(mutex_);
  const auto found = sessions_.find(session);
  if (found == sessions_.end() || !found->second->source || found->second->ended) {
    return fail(Errc::kNotFound, "no migration of this session leaves this host");
  }
  found->second->source->cancel();
  return {};
}

Result<bus::MigrationOutcome> Migrations::query(const std::string& session) {
  const MutexLock lock(mutex_);
  if (const auto found = sessions_.find(session);
      found != sessions_.end() && found->second->source && !found->second->ended) {
    return found->second->figures;
  }
  const auto ended = std::find_if(outcomes_.begin(), outcomes_.end(),
                                  [&](const auto& one) { return one.session() == session; });
  if (ended != outcomes_.end()) return *ended;
  return fail(Errc::kNotFound, "this agent knows nothing of the session");
}

Result<void> Migrations::settle(const VmId& vm, migrator::Verdict verdict) {
  for (const auto& session : live()) {
    if (session->target && session->vm == vm) {
      session->target->settle(verdict);
      return {};
    }
  }
  if (verdict == migrator::Verdict::kResume) return hypervisor_.resume(vm);
  TRY(hypervisor_.discard_paused(vm));
  if (options_.copy_discarded) options_.copy_discarded(vm);
  return {};
}

std::vector<std::string> Migrations::sessions() {
  const MutexLock lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [name, session] : sessions_) {
    if (!session->ended) names.push_back(name);
  }
  return names;
}

void Migrations::on_vm_event(const VmEvent& event) {
  for (const auto& session : live()) {
    if (session->source) session->source->on_vm_event(event);
  }
}

Result<void> Migrations::check_room(const std::string& session, const VmId& vm) {
  drop_ended();
  if (sessions_.size() >= options_.sessions_max) {
    return fail(Errc::kUnavailable, "this host carries out as many migrations as it may already");
  }
  if (sessions_.contains(session)) {
    return fail(Errc::kInvalid, "this session has been started already");
  }
  for (const auto& [name, other] : sessions_) {
    if (other->vm == vm) return fail(Errc::kInvalid, "the VM is being migrated already");
  }
  return {};
}

void Migrations::drop_ended() {
  std::erase_if(sessions_, [](const auto& entry) { return entry.second->ended; });
  std::erase_if(departed_, [](const auto& entry) { return entry.second->done(); });
}

std::shared_ptr<DepartingPages> Migrations::take_pages(const SharingDomain& domain) {
  if (!checkpoints_.is_on()) return nullptr;
  auto writer = checkpoints_.begin(domain);
  if (writer) return std::make_shared<DepartingPages>(*std::move(writer));
  log_warning("no checkpoint will be kept why=\"{}\"", writer.error().message());
  return nullptr;
}

/// The writing goes on when the session is over, until the VM comes back.
void Migrations::keep_pages(const VmInfo& vm, DepartingPages& departing) {
  departing.guest_left([this, vm](std::shared_ptr<const pagecache::Checkpoint> checkpoint) {
    log_info("checkpoint kept vm={} bytes={}", vm.name, checkpoint->bytes());
    checkpoints_.keep(vm, std::move(checkpoint));
  });
}

migrator::SourceOutcome Migrations::send_away(const std::string& name, Session& session) {
  const auto vm = migrator::find_vm(hypervisor_, session.vm);
  migrator::SourceOutcome outcome = session.source->run(
      [&](const migrator::SourceProgress& progress) { take_progress(name, session, progress); });
  const bool has_left = outcome.runs_on == migrator::Side::kTarget;
  if (!session.departing) return outcome;
  if (vm && has_left) {
    keep_pages(*vm, *session.departing);
  } else {
    session.departing->stop();
  }
  const MutexLock lock(mutex_);
  departed_.emplace(session.vm, std::move(session.departing));
  return outcome;
}

void Migrations::run_source(const std::string& name, Session& session) {
  const migrator::SourceOutcome outcome = send_away(name, session);
  if (session.departing_disks) session.departing_disks->ended(outcome.runs_on);

  bus::MigrationOutcome message;
  message.set_session(name);
  message.set_runs_on(side(outcome.runs_on));
  if (outcome.error) {
    message.mutable_failure()->set_code(static_cast<std::uint32_t>(outcome.error->code()));
    message.mutable_failure()->set_message(outcome.error->message());
  }
  put_counters(outcome.relay, outcome.wire_bytes, message);
  message.set_downtime_us(static_cast<std::uint64_t>(outcome.downtime.count()));
  message.set_total_us(static_cast<std::uint64_t>(outcome.total.count()));
  message.set_disk_bytes(outcome.disk_bytes);
  log_info(
      "migration ended session={} vm={} runs_on={} stream_bytes={} wire_bytes={} "
      "disk_bytes={} downtime_us={} total_us={} error=\"{}\"",
      name, session.vm.uuid, bus::MigrationOutcome::Side_Name(message.runs_on()),
      message.stream_bytes(), message.wire_bytes(), message.disk_bytes(), message.downtime_us(),
      message.total_us(), outcome.error ? outcome.error->message() : "");
  {
    const MutexLock lock(mutex_);
    if (outcomes_.size() >= options_.outcomes_max) outcomes_.pop_front();
    outcomes_.push_back(message);
    session.untouched.reset();
    session.ended = true;
  }
  ended_.notify_all();
  notices_.outcome(message);
}

void Migrations::run_target(const std::string& name, Session& session) {
  const migrator::TargetOutcome outcome = session.target->run();
  log_info("arrival ended session={} vm={} error=\"{}\"", name, session.vm.uuid,
           outcome.error ? outcome.error->message() : "");
  const bool is_home =
      outcome.copy == migrator::Copy::kRunning || outcome.copy == migrator::Copy::kPausedByOwner;
  if (is_home) checkpoints_.drop(session.vm);
  if (session.on_template != nullptr) session.on_template->end();
  if (session.coming_disks) session.coming_disks->ended(outcome.copy);
  {
    const MutexLock lock(mutex_);
    session.untouched.reset();
    session.ended = true;
  }
  ended_.notify_all();
}

void Migrations::take_progress(const std::string& name, Session& session,
                               const migrator::SourceProgress& progress) {
  {
    const MutexLock lock(mutex_);
    put_counters(progress.relay, progress.wire_bytes, session.figures);
    session.figures.set_disk_bytes(progress.disk_bytes);
  }
  bus::MigrationUpdate update;
  update.set_session(name);
  update.set_vm_uuid(session.vm.uuid);
  update.set_phase(std::string(to_string(progress.phase)));
  update.set_stream_bytes(progress.relay.stream_bytes);
  update.set_wire_bytes(progress.wire_bytes);
  update.set_page_refs(progress.relay.page_refs);
  update.set_bytes_remaining(progress.bytes_remaining);
  update.set_disk_bytes(progress.disk_bytes);
  notices_.update(update);
}

std::vector<std::shared_ptr<Migrations::Session>> Migrations::live() {
  const MutexLock lock(mutex_);
  std::vector<std::shared_ptr<Session>> sessions;
  for (const auto& [name, session] : sessions_) {
    if (!session->ended) sessions.push_back(session);
  }
  return sessions;
}

bool Migrations::wait_for_end(Deadline deadline,
                              const std::function<bool(const Session&)>& is_meant) {
  const MutexLock lock(mutex_);
  const auto all_ended = [&]() REQUIRES(mutex_) {
    return std::all_of(sessions_.begin(), sessions_.end(), [&](const auto& entry) {
      return entry.second->ended || !is_meant(*entry.second);
    });
  };
  while (!all_ended()) {
    if (ended_.wait_until(mutex_, deadline) == std::cv_status::timeout) return all_ended();
  }
  return true;
}

}  // namespace samepage::agent
