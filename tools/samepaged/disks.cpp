#include "tools/samepaged/disks.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/child_process.h"
#include "core/log.h"
#include "imagestore/disk_service.h"
#include "imagestore/manifest.h"
#include "imagestore/overlay.h"
#include "imagestore/store_socket.h"
#include "migrator/socket_stream.h"
#include "tools/samepaged/disk_entry.h"
#include "tools/samepaged/frozen_guest.h"

namespace samepage::agent {
namespace {

using imagestore::DirOrigin;
using imagestore::DiskConnection;
using imagestore::ImageStore;
using imagestore::Overlay;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kCallMax{5'000};
constexpr const char* kMoves = "the disk is moving with its VM: wait until the migration has ended";
constexpr std::chrono::minutes kCommitMax{10};
constexpr milliseconds kStopMax{20'000};
constexpr milliseconds kPauseMin{50};
constexpr milliseconds kSoon{5'000};  // A process that ends sooner has something wrong.
constexpr milliseconds kTendInterval{500};
constexpr milliseconds kStartInterval{5};
constexpr std::chrono::hours kLeaseInterval{1};
constexpr std::chrono::seconds kMovedInterval{2};  // For what migrations left.
constexpr std::chrono::seconds kResumeMax{120};

tl::unexpected<Error> io_error(const std::string& what) {
  return fail(Errc::kIo, what + ": " + std::generic_category().message(errno));
}

}  // namespace

Disks::Disks(Options options, Hypervisor& hypervisor, const Clock& clock)
    : options_(std::move(options)),
      hypervisor_(hypervisor),
      clock_(clock),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Disks::~Disks() {
  tender_.request_stop();
  wake_tender();
}

Result<std::unique_ptr<Disks>> Disks::create(Options options, Hypervisor& hypervisor,
                                             const Clock& clock) {
  std::unique_ptr<Disks> disks(new Disks(std::move(options), hypervisor, clock));
  std::error_code error;
  for (const auto& folder :
       {disks->options_.folder, disks->options_.mirrors, disks->options_.run_dir}) {
    std::filesystem::create_directories(folder, error);
    if (error) return fail(Errc::kIo, "create " + folder.string() + ": " + error.message());
  }
  TRY(disks->adopt());
  disks->tender_ = std::jthread([borrowed = disks.get()](const std::stop_token& stop) {
    ::prctl(PR_SET_NAME, "disks");
    borrowed->tend(stop);
  });
  return disks;
}

/// The disks of earlier agents; what a creation that was cut off left is cleared away.
Result<void> Disks::adopt() {
  std::error_code error;
  const MutexLock lock(mutex_);
  for (const auto& item : std::filesystem::directory_iterator(options_.folder, error)) {
    auto record = read_record(item.path());
    if (!record && record.error().code() == Errc::kNotFound) {
      std::filesystem::remove_all(item.path(), error);
      continue;
    }
    if (!record) {
      log_error("disk left out why=\"{}\"", record.error().message());
      continue;
    }
    auto found = std::make_shared<Entry>();
    found->record = *std::move(record);
    found->folder = item.path();
    if (auto process = find_process(*found)) found->process = *std::move(process);
    // Whatever happened to the process while no agent looked, its VM may be paused for it.
    found->resume_until = steady_clock::now() + kResumeMax;
    entries_.emplace(found->record.name, std::move(found));
  }
  if (error) return fail(Errc::kIo, options_.folder.string() + ": " + error.message());
  return {};
}

std::string Disks::socket_of(const std::string& name) const {
  return (options_.run_dir / (name + ".nbd")).string();
}

std::string Disks::control_of(const std::string& name) const {
  return (options_.run_dir / (name + ".control")).string();
}

std::string Disks::holder_of(const std::string& name) const {
  return "disk " + name + " on " + options_.host;
}

std::shared_ptr<Disks::Entry> Disks::entry(const std::string& name) {
  const MutexLock lock(mutex_);
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : found->second;
}

Result<bus::DiskState> Disks::create(const Wanted& wanted) {
  TRY(imagestore::check_image_name(wanted.name));
  auto made = std::make_shared<Entry>();
  made->record = {.name = wanted.name, .vm = wanted.vm, .image = wanted.image};
  made->folder = options_.folder / wanted.name;
  const std::lock_guard entry_lock(made->mutex);
  {
    const MutexLock lock(mutex_);
    if (entries_.size() >= options_.disks_max) {
      return fail(Errc::kUnavailable, "this host has as many disks as it may");
    }
    if (!entries_.emplace(wanted.name, made).second) {
      return fail(Errc::kInvalid, "there is a disk " + wanted.name + " on this host already");
    }
  }
  const auto begun = [&]() -> Result<void> {
    ImageStore::Options options = options_.store;
    options.access = DirOrigin::Access::kRead;
    const auto store = TRY(ImageStore::open(options));
    TRY(store->find_image(wanted.image));
    const auto version = TRY(store->catalog().version(wanted.image, wanted.number));
    made->record.number = version.number;
    made->record.base = version.id;
    const imagestore::OverlayRoot root{
        .base = version.id,
        .size_bytes = wanted.size_bytes == 0 ? version.size_bytes : wanted.size_bytes};
    if (root.size_bytes < version.size_bytes || root.size_bytes > imagestore::kImageBytesMax) {
      return fail(Errc::kInvalid, "a disk is at least as large as its image");
    }
    TRY(store->catalog().hold(version.id, holder_of(wanted.name),
                              {.from = std::chrono::floor<std::chrono::seconds>(clock_.today()),
                               .lasts = options_.lease}));
    TRY(Overlay::create(made->folder, root));
    TRY(write_record(made->folder, made->record));
    return start(*made);
  }();
  if (!begun) {
    drop(*made);
    return tl::unexpected(begun.error());
  }
  log_info("disk made name={} image={} number={} vm={}", wanted.name, wanted.image,
           made->record.number, wanted.vm);
  return state_of(*made);
}

/// What could not be made. Under the entry's mutex.
void Disks::drop(Entry& entry) {
  stop(entry);
  entry.is_removed = true;
  std::error_code ignored;
  std::filesystem::remove_all(entry.folder, ignored);
  const MutexLock lock(mutex_);
  entries_.erase(entry.record.name);
}

/// The process that serves a disk, when it answers. Under the entry's mutex.
Result<Fd> Disks::find_process(const Entry& entry) const {
  const Fd socket = TRY(imagestore::connect_store(control_of(entry.record.name)));
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return io_error("look at the disk's process");
  }
  Fd process = open_process(peer.pid);
  if (!process) return io_error("look at the disk's process");
  return process;
}

Result<pid_t> Disks::spawn(const Entry& entry) {
  const std::string& name = entry.record.name;
  const std::string log = (options_.run_dir / (name + ".log")).string();
  std::vector<std::string> words{options_.nbdkit,
                                 "--foreground",
                                 "--unix",
                                 socket_of(name),
                                 "--threads",
                                 std::to_string(options_.nbd_threads),
                                 options_.plugin,
                                 "folder=" + entry.folder.string(),
                                 "mirrors=" + options_.mirrors.string(),
                                 "store=" + options_.store.folder.string(),
                                 "origin=" + options_.store.origin,
                                 "ceph-conf=" + options_.store.ceph_conf.string(),
                                 "image=" + entry.record.image,
                                 "control=" + control_of(name)};
  if (entry.record.has_moved) words.push_back("traces=false");
  if (!options_.store_socket.empty()) words.push_back("agent=" + options_.store_socket);
  if (options_.store.domain) {
    words.push_back("domain=" + options_.store.domain->name);
    words.push_back("key=" + options_.key_file);
  }
  // What a process that died left would keep the next from listening.
  ::unlink(socket_of(name).c_str());
  return spawn_daemon(std::move(words), log);
}

Result<void> Disks::start(Entry& entry) {
  const pid_t pid = TRY(spawn(entry));
  entry.process = open_process(pid);
  entry.started = steady_clock::now();
  const Deadline deadline = entry.started + options_.start_max;
  const std::string& name = entry.record.name;
  while (!imagestore::connect_store(control_of(name)) ||
         !migrator::connect_unix(socket_of(name), deadline)) {
    if (has_ended(entry.process) || steady_clock::now() > deadline) {
      stop(entry);
      return fail(Errc::kUnavailable, "the process of disk " + name + " does not serve; see " +
                                          (options_.run_dir / (name + ".log")).string());
    }
    std::this_thread::sleep_for(kStartInterval);
  }
  wake_tender();
  return {};
}

void Disks::wake_tender() {
  const std::uint64_t one = 1;
  if (::write(wake_.get(), &one, sizeof one) < 0) log_debug("the disks' tender is awake already");
}

void Disks::stop(Entry& entry) {
  if (!entry.process) return;
  const auto signal = [&](int number) {
    ::syscall(SYS_pidfd_send_signal, entry.process.get(), number, nullptr, 0);
  };
  const auto wait = [&](milliseconds time) {
    pollfd ended{.fd = entry.process.get(), .events = POLLIN, .revents = 0};
    return ::poll(&ended, 1, static_cast<int>(time.count())) > 0;
  };
  signal(SIGTERM);
  if (!wait(kStopMax)) {
    signal(SIGKILL);
    wait(kStopMax);
  }
  siginfo_t info{};
  ::waitid(P_PIDFD, static_cast<id_t>(entry.process.get()), &info, WEXITED | WNOHANG);
  entry.process.reset();
  ::unlink(socket_of(entry.record.name).c_str());
  ::unlink(control_of(entry.record.name).c_str());
}

std::vector<std::shared_ptr<Disks::Entry>> Disks::all() {
  const MutexLock lock(mutex_);
  std::vector<std::shared_ptr<Entry>> all;
  for (const auto& [name, entry] : entries_) all.push_back(entry);
  return all;
}

void Disks::tend(const std::stop_token& stop) {
  auto next_lease = steady_clock::now();
  auto next_look = next_lease;
  while (!stop.stop_requested()) {
    std::vector<pollfd> watched{{.fd = wake_.get(), .events = POLLIN, .revents = 0}};
    for (const auto& entry : all()) {
      const std::unique_lock lock(entry->mutex, std::try_to_lock);
      if (!lock || entry->is_removed) continue;
      if (has_ended(entry->process)) restart(*entry);
      resume_vm(*entry);
      if (entry->process) {
        watched.push_back({.fd = entry->process.get(), .events = POLLIN, .revents = 0});
      }
    }
    if (steady_clock::now() >= next_lease) {
      renew_leases();
      prune_mirrors();
      next_lease = steady_clock::now() + kLeaseInterval;
    }
    if (steady_clock::now() >= next_look) {
      settle_moved();
      next_look = steady_clock::now() + kMovedInterval;
    }
    if (stop.stop_requested()) return;
    ::poll(watched.data(), watched.size(), static_cast<int>(kTendInterval.count()));
    std::uint64_t wakes = 0;
    if (::read(wake_.get(), &wakes, sizeof wakes) < 0) continue;
  }
}

void Disks::restart(Entry& entry) {
  const auto now = steady_clock::now();
  if (now < entry.next_start) return;
  if (entry.process) {
    log_warning("a disk's process ended and is started again name={} how=\"{}\"", entry.record.name,
                how_ended(entry.process));
    ++entry.restarts;
  }
  stop(entry);
  const bool ended_soon = now - entry.started < kSoon;
  entry.pause =
      ended_soon ? std::clamp(entry.pause * 2, kPauseMin, options_.pause_max) : milliseconds(0);
  entry.next_start = now + entry.pause;
  if (const auto started = start(entry); !started) {
    log_error("a disk is not served name={} why=\"{}\"", entry.record.name,
              started.error().message());
    return;
  }
  entry.resume_until = steady_clock::now() + kResumeMax;
}

/// QEMU pauses a VM whose disk was away; it repeats the request when it goes on.
void Disks::resume_vm(Entry& entry) {
  if (!entry.process || steady_clock::now() > entry.resume_until || entry.record.vm.empty()) return;
  const auto vms = hypervisor_.vms();
  if (!vms) return;
  for (const VmInfo& vm : *vms) {
    if (vm.name != entry.record.vm || vm.state != VmState::kPaused) continue;
    const auto resumed = hypervisor_.resume_after_io_error(vm.id);
    if (!resumed) {
      log_warning("a VM waits for its disk vm={} why=\"{}\"", vm.name, resumed.error().message());
    } else if (*resumed) {
      log_info("VM went on after its disk came back vm={} disk={}", vm.name, entry.record.name);
    }
  }
}

Result<bus::DiskState> Disks::state_of(Entry& entry) {
  bus::DiskState state;
  if (auto connection = DiskConnection::open(control_of(entry.record.name))) {
    bus::DiskRequest request;
    request.mutable_ask_status();
    auto reply = connection->call(request, steady_clock::now() + kCallMax);
    if (reply && reply->disks_size() == 1) state = reply->disks(0);
  }
  const DiskRecord& record = entry.record;
  state.set_name(record.name);
  state.set_vm(record.vm);
  state.set_image(record.image);
  state.set_number(record.number);
  state.set_base(std::string(reinterpret_cast<const char*>(record.base.bytes.data()),
                             record.base.bytes.size()));
  state.set_socket(socket_of(record.name));
  const std::unique_lock lock(entry.mutex, std::try_to_lock);
  if (lock) {
    state.set_restarts(entry.restarts);
    state.set_phase(std::string(to_string(record.phase)));
  }
  return state;
}

Result<std::shared_ptr<Disks::Entry>> Disks::expect(const std::string& name) {
  auto found = entry(name);
  if (found) return found;
  return fail(Errc::kNotFound, "there is no disk " + name + " on this host");
}

Result<bus::DiskState> Disks::find(const std::string& name) {
  return state_of(*TRY(expect(name)));
}

bus::DiskReply Disks::list() {
  bus::DiskReply reply;
  for (const auto& entry : all()) {
    if (auto state = state_of(*entry)) *reply.add_disks() = *std::move(state);
  }
  return reply;
}

Result<void> Disks::expect_idle(const Entry& entry) {
  if (entry.record.vm.empty()) return {};
  for (const VmInfo& vm : TRY(hypervisor_.vms())) {
    if (vm.name == entry.record.vm) {
      return fail(Errc::kInvalid, "VM " + vm.name + " is active and uses the disk: stop it first");
    }
  }
  return {};
}

Result<void> Disks::remove(const std::string& name) {
  const auto found = TRY(expect(name));
  TRY(expect_idle(*found));
  {
    const std::lock_guard lock(found->mutex);
    if (found->is_removed) return fail(Errc::kNotFound, "the disk is being removed already");
    if (found->is_moving) return fail(Errc::kInvalid, kMoves);
    found->is_removed = true;
    stop(*found);
    std::error_code error;
    // Without its record it is no disk any more, however far the rest comes.
    std::filesystem::remove(found->folder / "disk.json", error);
    if (!error) std::filesystem::remove_all(found->folder, error);
    std::filesystem::remove(options_.run_dir / (name + ".log"), error);
    if (error) return fail(Errc::kIo, "remove " + found->folder.string() + ": " + error.message());
  }
  {
    const MutexLock lock(mutex_);
    entries_.erase(name);
  }
  log_info("disk removed name={}", name);
  ImageStore::Options options = options_.store;
  options.access = DirOrigin::Access::kRead;
  const auto store = ImageStore::open(options);
  if (!store) return {};  // Its lease ends by itself.
  return (*store)->catalog().release(found->record.base, holder_of(name));
}

Result<bus::DiskCommitted> Disks::commit(const std::string& name, const std::string& image,
                                         bool freeze_guest) {
  const auto found = TRY(expect(name));
  {
    const std::lock_guard lock(found->mutex);
    if (found->is_moving) return fail(Errc::kInvalid, kMoves);
  }
  auto connection = TRY(DiskConnection::open(control_of(name)));
  bool was_frozen = false;
  std::string note = "the guest was not asked to write out its file systems";
  {
    FrozenGuest guest(hypervisor_, freeze_guest ? found->record.vm : "");
    if (freeze_guest) note = guest.note();
    bus::DiskRequest freeze;
    freeze.mutable_freeze();
    TRY(connection.call(freeze, steady_clock::now() + kCallMax));
    was_frozen = guest.is_frozen();
  }
  bus::DiskRequest commit;
  commit.mutable_commit()->set_image(image.empty() ? name : image);
  auto reply = TRY(connection.call(commit, steady_clock::now() + kCommitMax));
  bus::DiskCommitted& committed = *reply.mutable_committed();
  committed.set_guest_frozen(was_frozen);
  if (!was_frozen) committed.set_note(note);
  log_info("disk committed name={} image={} number={} changed_pages={} guest_frozen={}", name,
           committed.image(), committed.number(), committed.changed_pages(), was_frozen);
  return committed;
}

Result<bus::DiskState> Disks::clone(const std::string& name, const std::string& new_name,
                                    const std::string& vm) {
  TRY(imagestore::check_image_name(new_name));
  if (entry(new_name)) {
    return fail(Errc::kInvalid, "there is a disk " + new_name + " on this host already");
  }
  const auto committed = TRY(commit(name, "", true));
  return create(
      {.name = new_name, .image = committed.image(), .number = committed.number(), .vm = vm});
}

Result<bus::DiskReply> Disks::answer(const bus::DiskRequest& request) {
  bus::DiskReply reply;
  const std::string& name = request.name();
  switch (request.kind_case()) {
    case bus::DiskRequest::kCreate:
      *reply.add_disks() = TRY(create({.name = name,
                                       .image = request.create().image(),
                                       .number = request.create().number(),
                                       .size_bytes = request.create().size_bytes(),
                                       .vm = request.create().vm()}));
      return reply;
    case bus::DiskRequest::kList:
      return list();
    case bus::DiskRequest::kAskStatus:
      *reply.add_disks() = TRY(find(name));
      return reply;
    case bus::DiskRequest::kRemove:
      TRY(remove(name));
      return reply;
    case bus::DiskRequest::kCommit:
      *reply.mutable_committed() =
          TRY(commit(name, request.commit().image(), request.commit().freeze_guest()));
      return reply;
    case bus::DiskRequest::kClone:
      *reply.add_disks() = TRY(clone(name, request.clone().name(), request.clone().vm()));
      return reply;
    default:
      return fail(Errc::kInvalid, "an agent does not do that to a disk");
  }
}

}  // namespace samepage::agent
