#include "migrator/forker.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <regex>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/fd.h"
#include "core/log.h"
#include "core/random_vm_id.h"
#include "migrator/save_image.h"

namespace samepage::migrator {
namespace {

namespace fs = std::filesystem;
using std::chrono::duration_cast;
using std::chrono::milliseconds;

constexpr auto kLookInterval = milliseconds(50);
constexpr auto kRestInterval = milliseconds(500);
constexpr std::size_t kSerialBytesMax = std::size_t{4} << 20U;
constexpr std::size_t kSerialTailBytes = 300;

/// Runs at the end of a scope unless it was released.
class OnFailure {
 public:
  explicit OnFailure(std::function<void()> undo) : undo_(std::move(undo)) {}
  OnFailure(const OnFailure&) = delete;
  OnFailure& operator=(const OnFailure&) = delete;
  ~OnFailure() {
    if (undo_) undo_();
  }
  void release() { undo_ = {}; }

 private:
  std::function<void()> undo_;
};

/// A file in memory, for reading.
class MappedFile {
 public:
  static Result<MappedFile> open(const fs::path& path) {
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat found {};
    if (!file || ::fstat(file.get(), &found) != 0 || found.st_size == 0) {
      return fail(Errc::kIo, path.string() + " cannot be read");
    }
    const auto size = static_cast<std::size_t>(found.st_size);
    void* const bytes = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (bytes == MAP_FAILED) return fail(Errc::kIo, path.string() + " cannot be mapped");
    return MappedFile({static_cast<const std::byte*>(bytes), size});
  }
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}
  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MappedFile& operator=(MappedFile&&) = delete;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile() {
    if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

std::string serial_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kSerialBytesMax, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

std::string serial_tail(const std::string& path) {
  std::string text = serial_text(path);
  if (text.size() > kSerialTailBytes) text.erase(0, text.size() - kSerialTailBytes);
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  }
  return text.empty() ? "" : "; its serial line ends: " + text;
}

Result<void> write_file(const fs::path& path, std::span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) return fail(Errc::kIo, path.string() + " cannot be written");
  return {};
}

/// libvirt's folder for the RAM files of a domain is ID-NAME, the name cut short.
Result<fs::path> find_ram_file(const fs::path& shelf, const std::string& name) {
  constexpr std::size_t kShortNameMin = 20;
  const fs::path root = shelf.parent_path() / "libvirt" / "qemu";
  const std::string wanted = "-" + name.substr(0, kShortNameMin);
  std::error_code error;
  for (const auto& folder : fs::directory_iterator(root, error)) {
    const std::string found = folder.path().filename();
    const std::size_t dash = found.find('-');
    if (dash == std::string::npos || !found.substr(dash).starts_with(wanted)) continue;
    for (const auto& file : fs::directory_iterator(folder.path(), error)) {
      if (ram_block_of(file.path().filename().string())) return file.path();
    }
  }
  return fail(Errc::kIo,
              "the leader has no RAM file below " + root.string() +
                  ": is memory_backing_dir in qemu.conf the one that libvirtd has read?");
}

}  // namespace

Result<void> Forker::clean_up() {
  for (const auto& [vm, maker] : shelf_.pending()) {
    // A fork that runs was complete but for its note.
    const auto running = vms_.is_running(vm.id);
    if (!running && running.error().code() == Errc::kUnavailable) {
      return tl::unexpected(running.error());
    }
    if (maker == TemplateShelf::Maker::kFork && running.value_or(false)) {
      shelf_.settle(vm.id);
      continue;
    }
    log_info("half-made domain removed vm={}", vm.name);
    TRY(end(vm));
  }
  return {};
}

Result<void> Forker::end(const VmIdentity& vm) {
  TRY(vms_.end(vm.id));
  TRY(disks_.discard(vm.name));
  shelf_.settle(vm.id);
  return {};
}

Result<std::shared_ptr<const ShelvedTemplate>> Forker::make_template(
    const LeaderOrder& order, Deadline deadline, const std::function<bool()>& cancelled) {
  TRY(check_template_name(order.name));
  const VmId id = TRY(random_vm_id());
  const VmIdentity identity{.name = "leader-" + id.uuid.substr(0, 8) + "-" + order.name, .id = id};
  TRY(shelf_.note(identity, TemplateShelf::Maker::kLeader));
  const OnFailure finally([&] {
    if (const auto ended = end(identity); !ended) {
      log_warning("leader not ended vm={} why=\"{}\"", identity.name, ended.error().message());
    }
  });
  TemplateState state = TRY(describe(order));
  TRY(prepare_leader(order, identity, state));
  // Its RAM file, and for a moment its save image beside it.
  TRY(shelf_.make_room(state.memory_bytes));
  const auto started = clock_.now();
  log_info("leader started vm={} template={}", identity.name, order.name);
  TRY(vms_.start(state.leader.xml));
  TRY(wait_until_ready(order, id, deadline, cancelled));
  state.ready_ms =
      static_cast<std::uint64_t>(duration_cast<milliseconds>(clock_.now() - started).count());
  if (order.ready_when.kind != ReadyWhen::Kind::kTime) {
    TRY(wait_for_rest(id, std::min(deadline, clock_.now() + kRestMax), cancelled));
  }
  TRY(vms_.suspend(id));
  const fs::path ram = TRY(find_ram_file(shelf_.work_folder().parent_path(), identity.name));
  state.ram_block = ram.filename();
  std::error_code error;
  state.memory_bytes = fs::file_size(ram, error);
  if (error) return fail(Errc::kIo, ram.string() + ": " + error.message());
  if (!state.image.empty()) {
    state.disk_version = TRY(disks_.freeze(identity.name, disk_image_of(state.name)));
  }
  OnFailure forget([&] { shelf_.remove(state.id); });
  TRY(freeze(identity, ram, state));
  auto shelved = TRY(shelf_.keep(state));
  forget.release();
  log_info("template made name={} id={} ready_ms={} state_bytes={}", state.name, state.id,
           state.ready_ms, state.stream.size());
  return shelved;
}

Result<TemplateState> Forker::describe(const LeaderOrder& order) const {
  TemplateState state;
  state.name = order.name;
  state.id = TRY(random_vm_id()).uuid;
  std::erase(state.id, '-');
  state.image = order.image;
  state.image_version = order.image_version;
  state.hypervisor = order.hypervisor;
  state.made_at = std::chrono::floor<std::chrono::seconds>(clock_.today());
  return state;
}

Result<void> Forker::prepare_leader(const LeaderOrder& order, VmIdentity identity,
                                    TemplateState& state) {
  BootDisks::Disk disk;
  if (!order.image.empty()) {
    disk = TRY(disks_.make(identity.name, order.image, order.image_version));
    state.image_version = disk.version;
    identity.disk_socket = disk.socket;
  }
  state.leader = TRY(leader_xml(order.domain, identity, disk.element));
  const DomainSummary summary = TRY(summarize_domain(state.leader.xml));
  state.memory_bytes = summary.memory_bytes;
  state.vcpus = summary.vcpus;
  return {};
}

/// Puts the suspended leader's RAM on the shelf and the rest of it into the state.
Result<void> Forker::freeze(const VmIdentity& identity, const fs::path& ram, TemplateState& state) {
  const fs::path folder = TRY(shelf_.begin(state.id));
  std::error_code error;
  fs::create_hard_link(ram, folder / state.ram_block, error);
  if (error) return fail(Errc::kIo, ram.string() + ": " + error.message());
  const fs::path image = shelf_.work_folder() / (identity.id.uuid + ".save");
  const OnFailure remove_image([&] { fs::remove(image, error); });
  TRY(vms_.save(identity.id, image));
  const MappedFile file = TRY(MappedFile::open(image));
  const SaveImage saved = TRY(SaveImage::parse(file.bytes()));
  state.leader.xml = saved.xml;
  state.cookie = saved.cookie;
  state.stream = TRY(without_block(saved.stream, state.ram_block));
  return {};
}

Result<std::function<Result<bool>()>> Forker::readiness(const ReadyWhen& when, const VmId& vm,
                                                        const std::string& serial) {
  switch (when.kind) {
    case ReadyWhen::Kind::kSerial:
      if (serial.empty()) {
        return fail(Errc::kInvalid, "the domain has no serial line that goes to a file");
      }
      try {
        return [serial, pattern = std::regex(when.pattern)]() -> Result<bool> {
          return std::regex_search(serial_text(serial), pattern);
        };
      } catch (const std::regex_error& error) {
        return fail(Errc::kInvalid, "the pattern " + when.pattern + ": " + error.what());
      }
    case ReadyWhen::Kind::kAgent:
      return [this, vm] { return vms_.agent_answers(vm); };
    case ReadyWhen::Kind::kTime:
      break;
  }
  return
      [this, until = clock_.now() + when.time]() -> Result<bool> { return clock_.now() >= until; };
}

Result<void> Forker::wait_until_ready(const LeaderOrder& order, const VmId& vm, Deadline deadline,
                                      const std::function<bool()>& cancelled) {
  const std::string xml = TRY(vms_.xml(vm));
  const std::string serial = TRY(serial_file(xml));
  const auto is_ready = TRY(readiness(order.ready_when, vm, serial));
  while (true) {
    const auto running = vms_.is_running(vm);
    if (!running && running.error().code() == Errc::kNotFound) {
      return fail(Errc::kUnavailable, "the leader ended before it was ready" + serial_tail(serial));
    }
    if (running.value_or(false) && TRY(is_ready())) return {};
    if (cancelled()) return fail(Errc::kUnavailable, "the template was cancelled");
    if (clock_.now() >= deadline) {
      return fail(Errc::kTimedOut, "the leader was not ready in time" + serial_tail(serial));
    }
    std::this_thread::sleep_for(kLookInterval);
  }
}

Result<void> Forker::wait_for_rest(const VmId& vm, Deadline until,
                                   const std::function<bool()>& cancelled) {
  auto looked = clock_.now();
  auto used = TRY(vms_.cpu_time(vm));
  while (clock_.now() < until) {
    if (cancelled()) return fail(Errc::kUnavailable, "the template was cancelled");
    std::this_thread::sleep_for(kLookInterval);
    const std::chrono::duration<double> passed = clock_.now() - looked;
    if (passed < kRestInterval) continue;
    const auto used_now = TRY(vms_.cpu_time(vm));
    if (used_now - used < kRestShare * passed) break;
    looked = clock_.now();
    used = used_now;
  }
  return {};
}

Result<ForkReport> Forker::fork(const ShelvedTemplate& shelved, const ForkOrder& order) {
  const auto started = clock_.now();
  const TemplateState& state = shelved.state;
  const VmId& id = order.identity.id;
  TRY(check_vm_id(id));
  if (state.disk_version != 0) TRY(disks_.expect_none(order.identity.name));
  TRY(shelf_.note(order.identity, TemplateShelf::Maker::kFork));
  VmIdentity vm = order.identity;
  OnFailure undo([&] {
    shelf_.take_ticket_back(id);
    undo_boot(vm);
  });
  TRY(give_disk(vm, disk_image_of(state.name), state.disk_version));
  TRY(restore_fork(shelved, vm));
  unsigned index = 0;
  for (const std::string& nic : state.leader.nics) {
    const std::string card = TRY(nic_xml(nic, id, index++));
    TRY(vms_.attach(id, card));
  }
  if (!order.paused) TRY(vms_.resume(id));
  undo.release();
  shelf_.settle(id);
  return ForkReport{.took = duration_cast<milliseconds>(clock_.now() - started)};
}

/// Ends what is there of a VM; a disk that the VM did not get is somebody else's.
void Forker::undo_boot(const VmIdentity& vm) {
  const auto ended = vms_.end(vm.id);
  const auto discarded = vm.disk_socket.empty() ? Result<void>() : disks_.discard(vm.name);
  if (ended && discarded) shelf_.settle(vm.id);
}

Result<void> Forker::give_disk(VmIdentity& vm, const std::string& image, std::uint64_t version) {
  if (version == 0) return {};
  vm.disk_socket = TRY(disks_.make(vm.name, image, version)).socket;
  return {};
}

Result<void> Forker::restore_fork(const ShelvedTemplate& shelved, const VmIdentity& vm) {
  const TemplateState& state = shelved.state;
  SaveImage image;
  image.xml = TRY(fork_xml(state.leader.xml, vm, state.id));
  image.cookie = state.cookie;
  image.stream = state.stream;
  const fs::path file = shelf_.work_folder() / (vm.id.uuid + ".save");
  std::error_code ignored;
  const OnFailure remove([&] { fs::remove(file, ignored); });
  TRY(write_file(file, image.serialize()));
  TRY(shelf_.lay_ticket(shelved, vm.id));
  const auto restored = vms_.restore(file);
  // The hook takes the ticket before QEMU starts. With the ticket still there, QEMU has made a RAM
  // file of its own, and whatever came out must not run.
  if (shelf_.take_ticket_back(vm.id)) {
    const std::string why = restored ? "" : ": " + restored.error().message();
    if (!restored && restored.error().code() == Errc::kUnavailable) return restored;
    return fail(
        Errc::kInvalid,
        "libvirt did not call Samepage's hook: run `samepage doctor --fix` on this host and "
        "restart libvirtd, which looks for hooks only when it starts" +
            why);
  }
  return restored;
}

Result<ForkReport> Forker::boot_cold(const TemplateState& state, const ForkOrder& order) {
  const auto started = clock_.now();
  TRY(check_vm_id(order.identity.id));
  if (state.image_version != 0) TRY(disks_.expect_none(order.identity.name));
  TRY(shelf_.note(order.identity, TemplateShelf::Maker::kFork));
  VmIdentity vm = order.identity;
  OnFailure undo([&] { undo_boot(vm); });
  TRY(give_disk(vm, state.image, state.image_version));
  const std::string xml = TRY(cold_xml(state.leader, vm));
  TRY(vms_.start(xml));
  undo.release();
  shelf_.settle(vm.id);
  return ForkReport{.took = duration_cast<milliseconds>(clock_.now() - started)};
}

}  // namespace samepage::migrator
