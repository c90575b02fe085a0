#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include <sys/statvfs.h>

#include "core/log.h"
#include "imagestore/disk_service.h"
#include "imagestore/manifest.h"
#include "imagestore/overlay.h"
#include "tools/samepaged/disk_entry.h"

namespace samepage::agent {
namespace {

using imagestore::DirOrigin;
using imagestore::DiskConnection;
using imagestore::ImageStore;
using imagestore::VersionId;

constexpr std::chrono::seconds kCallMax{5};
constexpr std::uint64_t kRoomToSpare = std::uint64_t{64} << 20U;
constexpr std::size_t kVmNameMax = 255;

std::string to_text(const VersionId& id) {
  return {reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size()};
}

Result<VersionId> read_version(const std::string& text) {
  VersionId id;
  if (text.size() != id.bytes.size()) return fail(Errc::kInvalid, "a version has 32 bytes");
  std::ranges::copy(std::as_bytes(std::span(text)), id.bytes.begin());
  return id;
}

/// What a commit that was cut off was about to make (imagestore/disk_commit.h).
std::string read_intent(const std::filesystem::path& folder) {
  std::ifstream file(folder / "intent", std::ios::binary);
  std::string text(sizeof(VersionId::bytes), '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  return file ? text : std::string();
}

Result<void> check_words(const bus::DiskOffer& offer) {
  TRY(imagestore::check_image_name(offer.name()));
  TRY(imagestore::check_image_name(offer.image()));
  if (offer.size_bytes() == 0 || offer.size_bytes() > imagestore::kImageBytesMax ||
      offer.vm().size() > kVmNameMax) {
    return fail(Errc::kInvalid, "a disk that cannot be");
  }
  return {};
}

Result<void> check_room(const std::filesystem::path& folder, std::uint64_t bytes) {
  struct statvfs about {};
  if (::statvfs(folder.c_str(), &about) != 0) {
    return fail(Errc::kIo, folder.string() + ": " + std::generic_category().message(errno));
  }
  const std::uint64_t room = std::uint64_t{about.f_bavail} * about.f_frsize;
  if (room >= kRoomToSpare && room - kRoomToSpare >= bytes) return {};
  return fail(Errc::kUnavailable, "there is no room for it in " + folder.string() + ": it has " +
                                      std::to_string(bytes >> 20U) + " MiB, and " +
                                      std::to_string(room >> 20U) + " MiB are free");
}

}  // namespace

bool Disks::is_empty() {
  const MutexLock lock(mutex_);
  return entries_.empty();
}

Result<std::vector<std::string>> Disks::at_sockets(const std::vector<std::string>& sockets) {
  std::vector<std::string> names;
  const auto here = all();
  for (const std::string& socket : sockets) {
    const auto found = std::ranges::find_if(
        here, [&](const auto& entry) { return socket_of(entry->record.name) == socket; });
    if (found != here.end()) {
      names.push_back((*found)->record.name);
    } else if (std::filesystem::path(socket).parent_path() == options_.run_dir) {
      return fail(Errc::kInvalid, "its disk at " + socket +
                                      " is none that this host's agent knows; what was written to "
                                      "it would stay behind");
    }
  }
  return names;
}

Result<bus::DiskOffer> Disks::offer(const std::string& name) {
  const auto found = TRY(expect(name));
  auto connection = TRY(DiskConnection::open(control_of(name)));
  bus::DiskRequest request;
  request.mutable_ask_status();
  const auto reply = TRY(connection.call(request, std::chrono::steady_clock::now() + kCallMax));
  if (reply.disks_size() != 1) return fail(Errc::kCorrupt, "a disk's process tells nothing of it");
  const bus::DiskState& state = reply.disks(0);
  bus::DiskOffer offer;
  offer.set_name(name);
  offer.set_vm(found->record.vm);
  offer.set_image(found->record.image);
  offer.set_number(found->record.number);
  offer.set_base(state.base());
  offer.set_committed(state.committed());
  offer.set_size_bytes(state.size_bytes());
  offer.set_held_bytes(state.written_bytes());
  offer.set_dirty_bytes(std::min(state.dirty_bytes(), state.written_bytes()));
  offer.set_intent(read_intent(found->folder));
  return offer;
}

/// Where a disk of the name is here: one that an earlier migration of the same VM left gives way,
/// for the VM runs, with its disk, on the host that offers it.
Result<void> Disks::make_room_for(const bus::DiskOffer& offer, const VmInfo& vm) {
  const auto found = entry(offer.name());
  if (!found) return {};
  {
    const std::lock_guard lock(found->mutex);
    const DiskRecord& record = found->record;
    if (record.phase == DiskPhase::kHere || record.vm_uuid != vm.id.uuid) {
      return fail(Errc::kInvalid, "there is a disk " + offer.name() +
                                      " on that host already; keep what is needed of it and "
                                      "remove it (samepage disk rm)");
    }
  }
  for (const VmInfo& other : TRY(hypervisor_.vms())) {
    if (other.id == vm.id) return fail(Errc::kInvalid, "the VM is on that host already");
  }
  log_info("a disk that an earlier migration left gives way name={}", offer.name());
  return remove(offer.name());
}

/// On what the store has: the version of the disk's last commit, or the one that it stands on at
/// its source. True: the former.
Result<bool> Disks::choose_base(const bus::DiskOffer& offer, DiskRecord& record) {
  ImageStore::Options options = options_.store;
  options.access = DirOrigin::Access::kRead;
  const auto store = TRY(ImageStore::open(options));
  const imagestore::Lease lease{.from = std::chrono::floor<std::chrono::seconds>(clock_.today()),
                                .lasts = options_.lease};
  const auto stands_on = [&](const VersionId& version) -> Result<void> {
    TRY(store->catalog().hold(version, holder_of(offer.name()), lease));
    const auto manifest = imagestore::Manifest::open(store->origin(), store->keys(), version);
    if (!manifest) return tl::unexpected(manifest.error());
    if (manifest->size_bytes() <= offer.size_bytes()) return {};
    return fail(Errc::kInvalid, "a disk is at least as large as its image");
  };
  record.base = TRY(read_version(offer.committed()));
  if (stands_on(record.base)) return true;
  record.base = TRY(read_version(offer.base()));
  const auto stands = stands_on(record.base);
  if (stands) return false;
  return fail(Errc::kInvalid, "the image store of that host does not have the version of image " +
                                  offer.image() +
                                  " that it stands on: " + stands.error().message());
}

/// Under the entry's mutex.
Result<void> Disks::lay_out(Entry& entry, const bus::DiskOffer& offer, bool committed) {
  TRY(imagestore::Overlay::create(entry.folder,
                                  {.base = entry.record.base, .size_bytes = offer.size_bytes()}));
  if (!offer.intent().empty()) {
    const VersionId intent = TRY(read_version(offer.intent()));
    std::ofstream(entry.folder / "intent", std::ios::binary) << to_text(intent);
  }
  TRY(write_record(entry.folder, entry.record));
  TRY(start(entry));
  if (committed || offer.committed() == offer.base()) return {};
  auto connection = TRY(DiskConnection::open(control_of(offer.name())));
  bus::DiskRequest adopt;
  adopt.mutable_adopt_commit()->set_version(offer.committed());
  TRY(connection.call(adopt, std::chrono::steady_clock::now() + kCallMax));
  return {};
}

Result<bus::DiskAnswer> Disks::receive(const bus::DiskOffer& offer, const VmInfo& vm) {
  TRY(check_words(offer));
  TRY(make_room_for(offer, vm));
  auto made = std::make_shared<Entry>();
  made->record = {.name = offer.name(),
                  .vm = vm.name.empty() ? offer.vm() : vm.name,
                  .image = offer.image(),
                  .number = offer.number(),
                  .phase = DiskPhase::kArriving,
                  .vm_uuid = vm.id.uuid,
                  .has_moved = true};
  made->folder = options_.folder / offer.name();
  made->is_moving = true;
  const std::lock_guard entry_lock(made->mutex);
  {
    const MutexLock lock(mutex_);
    if (entries_.size() >= options_.disks_max) {
      return fail(Errc::kUnavailable, "that host has as many disks as it may");
    }
    if (!entries_.emplace(offer.name(), made).second) {
      return fail(Errc::kInvalid, "a disk " + offer.name() + " is being made on that host");
    }
  }
  bus::DiskAnswer answer;
  const auto begun = [&]() -> Result<void> {
    answer.set_committed(TRY(choose_base(offer, made->record)));
    TRY(check_room(options_.folder, answer.committed() ? offer.dirty_bytes() : offer.held_bytes()));
    return lay_out(*made, offer, answer.committed());
  }();
  if (!begun) {
    drop(*made);
    return tl::unexpected(begun.error());
  }
  log_info("disk arrives name={} image={} vm={} on_last_commit={} bytes={}", offer.name(),
           offer.image(), made->record.vm, answer.committed(), offer.held_bytes());
  return answer;
}

Result<void> Disks::set_moving(const std::string& name, bool moving) {
  const auto found = TRY(expect(name));
  const std::lock_guard lock(found->mutex);
  if (moving && found->is_moving) return fail(Errc::kInvalid, "the disk is moving already");
  found->is_moving = moving;
  return {};
}

Result<void> Disks::set_phase(const std::string& name, DiskPhase phase, const VmId& vm) {
  const auto found = TRY(expect(name));
  const std::lock_guard lock(found->mutex);
  DiskRecord record = found->record;
  record.phase = phase;
  record.vm_uuid = vm.uuid;
  TRY(write_record(found->folder, record));
  found->record.phase = phase;
  found->record.vm_uuid = vm.uuid;
  log_info("disk moves name={} phase={}", name, to_string(phase));
  return {};
}

void Disks::copy_discarded(const VmId& vm) {
  for (const auto& entry : all()) {
    {
      const std::lock_guard lock(entry->mutex);
      const bool came = entry->record.phase == DiskPhase::kArrived && !entry->is_moving;
      if (!came || entry->record.vm_uuid != vm.uuid) continue;
    }
    static_cast<void>(set_phase(entry->record.name, DiskPhase::kArriving, vm));
  }
}

/// What migrations left of which no agent knows the end: by what runs here now.
void Disks::settle_moved() {
  std::vector<DiskRecord> left;
  for (const auto& entry : all()) {
    const std::unique_lock lock(entry->mutex, std::try_to_lock);
    if (!lock || entry->is_removed || entry->is_moving) continue;
    if (entry->record.phase != DiskPhase::kHere) left.push_back(entry->record);
  }
  if (left.empty()) return;
  const auto vms = hypervisor_.vms();
  if (!vms) return;
  for (const DiskRecord& record : left) settle_moved(record, *vms);
}

void Disks::settle_moved(const DiskRecord& record, const std::vector<VmInfo>& vms) {
  const std::string& name = record.name;
  const VmId id{record.vm_uuid};
  const auto vm = std::ranges::find_if(vms, [&](const VmInfo& one) { return one.id == id; });
  if (vm != vms.end()) {
    if (vm->state != VmState::kRunning) return;
    if (const auto stays = set_phase(name, DiskPhase::kHere, id); !stays) {
      log_warning("a disk's record was not written name={} why=\"{}\"", name,
                  stays.error().message());
    }
    return;
  }
  // The others may be all that there is.
  if (record.phase != DiskPhase::kArriving && record.phase != DiskPhase::kLeft) return;
  if (const auto removed = remove(name); !removed) {
    log_warning("a disk that a migration left stays name={} why=\"{}\"", name,
                removed.error().message());
  }
}

}  // namespace samepage::agent
