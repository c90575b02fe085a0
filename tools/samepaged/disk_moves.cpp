#include "tools/samepaged/disk_moves.h"

#include <optional>
#include <utility>

#include "core/log.h"
#include "imagestore/disk_service.h"
#include "migrator/domain_xml.h"

namespace samepage::agent {
namespace {

using imagestore::DiskConnection;

constexpr std::chrono::seconds kCallMax{20};  // A flush may take long.

Deadline soon() {
  return std::chrono::steady_clock::now() + kCallMax;
}

template <class Message>
std::vector<std::byte> bytes_of(const Message& message) {
  const std::string text = message.SerializeAsString();
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

template <class Message>
Result<Message> message_of(std::span<const std::byte> bytes) {
  Message message;
  if (message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return message;
  return fail(Errc::kCorrupt, "the other host says something else of a disk");
}

class Leaving final : public migrator::LeavingDisk {
 public:
  Leaving(std::string name, Disks& disks) : name_(std::move(name)), disks_(disks) {}

  std::string name() const override { return name_; }

  Result<std::vector<std::byte>> offer() override { return bytes_of(TRY(disks_.offer(name_))); }

  Result<void> begin(std::span<const std::byte> answer) override {
    const auto heard = TRY(message_of<bus::DiskAnswer>(answer));
    connection_.emplace(TRY(DiskConnection::open(disks_.control_of(name_))));
    bus::DiskRequest request;
    request.mutable_begin_move()->set_committed(!heard.committed());
    TRY(connection_->call(request, soon()));
    return {};
  }

  Result<Parcel> next() override {
    bus::DiskRequest request;
    request.mutable_take_pages();
    const auto reply = TRY(connection_->call(request, soon()));
    const auto bytes = std::as_bytes(std::span(reply.parcel()));
    return Parcel{.bytes = {bytes.begin(), bytes.end()},
                  .disk_bytes = reply.parcel_bytes(),
                  .is_last = reply.round_ended()};
  }

  Result<void> limit_writes(std::uint64_t bytes_per_s) override {
    bus::DiskRequest request;
    request.mutable_limit_writes()->set_bytes_per_s(bytes_per_s);
    TRY(connection_->call(request, soon()));
    return {};
  }

 private:
  const std::string name_;
  Disks& disks_;
  std::optional<DiskConnection> connection_;  ///< Its end ends the move.
};

class Arriving final : public migrator::ArrivingDisk {
 public:
  Arriving(std::string name, VmId vm, bus::DiskAnswer answer, DiskConnection connection,
           Disks& disks)
      : name_(std::move(name)),
        vm_(std::move(vm)),
        answer_(std::move(answer)),
        connection_(std::move(connection)),
        disks_(disks) {}

  std::vector<std::byte> answer() override { return bytes_of(answer_); }

  Result<void> put(std::span<const std::byte> parcel) override {
    bus::DiskRequest request;
    request.mutable_put_pages()->set_parcel(parcel.data(), parcel.size());
    TRY(connection_.call(request, soon()));
    return {};
  }

  Result<void> flush() override {
    bus::DiskRequest request;
    request.mutable_flush();
    TRY(connection_.call(request, soon()));
    return {};
  }

  Result<void> complete() override {
    TRY(flush());
    return disks_.set_phase(name_, DiskPhase::kArrived, vm_);
  }

 private:
  const std::string name_;
  const VmId vm_;
  const bus::DiskAnswer answer_;
  DiskConnection connection_;
  Disks& disks_;
};

void warn(const std::string& name, const Result<void>& result) {
  if (result) return;
  log_warning("a disk that moved is not settled yet name={} why=\"{}\"", name,
              result.error().message());
}

}  // namespace

Result<std::unique_ptr<DepartingDisks>> DepartingDisks::of_vm(const VmId& vm, VmControl& vms,
                                                              Disks& disks) {
  std::unique_ptr<DepartingDisks> departing(new DepartingDisks(vm, disks));
  const auto xml = vms.xml(vm);
  if (!xml && disks.is_empty()) return departing;
  if (!xml) return tl::unexpected(xml.error());
  departing->found_ = TRY(disks.at_sockets(migrator::nbd_sockets(*xml)));
  return departing;
}

DepartingDisks::~DepartingDisks() {
  // The phase stays: in doubt.
  for (const std::string& name : names_) warn(name, disks_.set_moving(name, false));
}

Result<migrator::LeavingDiskList> DepartingDisks::leave() {
  migrator::LeavingDiskList leaving;
  const auto begun = [&]() -> Result<void> {
    for (const std::string& name : found_) {
      TRY(disks_.set_moving(name, true));
      names_.push_back(name);
      TRY(disks_.set_phase(name, DiskPhase::kLeaving, vm_));
      leaving.push_back(std::make_unique<Leaving>(name, disks_));
    }
    return {};
  }();
  if (begun) return leaving;
  ended(migrator::Side::kSource);
  return tl::unexpected(begun.error());
}

void DepartingDisks::ended(migrator::Side runs_on) {
  for (const std::string& name : std::exchange(names_, {})) {
    if (runs_on == migrator::Side::kSource) {
      warn(name, disks_.set_phase(name, DiskPhase::kHere, vm_));
    } else if (runs_on == migrator::Side::kTarget) {
      warn(name, disks_.set_phase(name, DiskPhase::kLeft, vm_));
    }
    warn(name, disks_.set_moving(name, false));
    if (runs_on == migrator::Side::kTarget) warn(name, disks_.remove(name));
  }
}

ComingDisks::~ComingDisks() {
  const MutexLock lock(mutex_);
  for (const std::string& name : names_) warn(name, disks_.set_moving(name, false));
}

Result<std::unique_ptr<migrator::ArrivingDisk>> ComingDisks::expect(
    std::span<const std::byte> words) {
  const auto offer = TRY(message_of<bus::DiskOffer>(words));
  auto answer = TRY(disks_.receive(offer, vm_));
  {
    const MutexLock lock(mutex_);
    names_.push_back(offer.name());
  }
  auto connection = TRY(DiskConnection::open(disks_.control_of(offer.name())));
  return std::make_unique<Arriving>(offer.name(), vm_.id, std::move(answer), std::move(connection),
                                    disks_);
}

void ComingDisks::ended(migrator::Copy copy) {
  std::vector<std::string> names;
  {
    const MutexLock lock(mutex_);
    names.swap(names_);
  }
  const bool is_home = copy == migrator::Copy::kRunning || copy == migrator::Copy::kPausedByOwner;
  for (const std::string& name : names) {
    // The guest never ran here, and the source has all that it wrote.
    const bool is_needless = copy == migrator::Copy::kNone;
    if (is_home) warn(name, disks_.set_phase(name, DiskPhase::kHere, vm_.id));
    if (is_needless) warn(name, disks_.set_phase(name, DiskPhase::kArriving, vm_.id));
    warn(name, disks_.set_moving(name, false));
    if (is_needless) warn(name, disks_.remove(name));
  }
}

}  // namespace samepage::agent
