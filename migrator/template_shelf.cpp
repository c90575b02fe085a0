#include "migrator/template_shelf.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <regex>
#include <system_error>
#include <utility>

#include <sys/stat.h>
#include <sys/statvfs.h>

#include "core/log.h"

namespace samepage::migrator {
namespace {

namespace fs = std::filesystem;

constexpr const char* kStateFile = "state";

tl::unexpected<Error> io(const fs::path& path, const std::error_code& error) {
  return fail(Errc::kIo, path.string() + ": " + error.message());
}

Result<void> make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (!error)
    fs::permissions(path, fs::perms::owner_all | fs::perms::group_exec | fs::perms::others_exec,
                    error);
  if (error) return io(path, error);
  return {};
}

void discard(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) log_warning("not removed file={} why=\"{}\"", path.string(), error.message());
}

Result<std::vector<std::byte>> read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file) return fail(Errc::kIo, path.string() + " cannot be read");
  const auto bytes = std::as_bytes(std::span(text));
  return std::vector<std::byte>(bytes.begin(), bytes.end());
}

Result<void> write_file(const fs::path& path, std::span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) return fail(Errc::kIo, path.string() + " cannot be written: " + std::strerror(errno));
  return {};
}

struct RamFile {
  std::uint64_t bytes = 0;
  std::uint64_t links = 0;
};

RamFile look_at(const fs::path& path) {
  constexpr std::uint64_t kBlockBytes = 512;
  struct stat found {};
  if (::stat(path.c_str(), &found) != 0) return {};
  return {.bytes = static_cast<std::uint64_t>(found.st_blocks) * kBlockBytes,
          .links = static_cast<std::uint64_t>(found.st_nlink)};
}

Result<ShelvedTemplate> load(const fs::path& folder) {
  const auto bytes = TRY(read_file(folder / kStateFile));
  ShelvedTemplate shelved{.state = TRY(TemplateState::parse(bytes)), .folder = folder};
  if (shelved.state.id != folder.filename()) {
    return fail(Errc::kCorrupt, folder.string() + " holds another template");
  }
  if (look_at(shelved.ram_file()).links == 0) {
    return fail(Errc::kCorrupt, folder.string() + " has no RAM file");
  }
  return shelved;
}

std::string mib(std::uint64_t bytes) {
  return std::to_string(bytes >> 20U) + " MiB";
}

std::vector<fs::path> children(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder, error)) found.push_back(entry.path());
  return found;
}

}  // namespace

Result<std::unique_ptr<TemplateShelf>> TemplateShelf::open(const Options& options) {
  for (const char* part : {"templates", "forks", "pending", "work"}) {
    TRY(make_folder(options.folder / part));
  }
  auto shelf = std::make_unique<TemplateShelf>(options);
  TRY(shelf->scan());
  return shelf;
}

Result<void> TemplateShelf::scan() {
  for (const char* part : {"forks", "work"}) {
    for (const fs::path& left : children(options_.folder / part)) discard(left);
  }
  const MutexLock lock(mutex_);
  for (const fs::path& folder : children(options_.folder / "templates")) {
    auto shelved = load(folder);
    if (!shelved) {
      log_warning("template dropped folder={} why=\"{}\"", folder.string(),
                  shelved.error().message());
      discard(folder);
      continue;
    }
    const std::string id = shelved->state.id;
    slots_[id] = {.shelved = std::make_shared<const ShelvedTemplate>(*std::move(shelved)),
                  .used_at = {}};
  }
  return {};
}

std::vector<TemplateShelf::Entry> TemplateShelf::list() const {
  std::vector<Entry> entries;
  {
    const MutexLock lock(mutex_);
    for (const auto& [id, slot] : slots_) {
      const RamFile file = look_at(slot.shelved->ram_file());
      entries.push_back({.shelved = slot.shelved,
                         .ram_bytes = file.bytes,
                         .forks = file.links > 0 ? file.links - 1 : 0});
    }
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    const TemplateState& x = a.shelved->state;
    const TemplateState& y = b.shelved->state;
    return std::tie(x.name, y.made_at, x.id) < std::tie(y.name, x.made_at, y.id);
  });
  return entries;
}

Result<std::shared_ptr<const ShelvedTemplate>> TemplateShelf::find(
    std::string_view name_or_id) const {
  for (const Entry& entry : list()) {
    const TemplateState& state = entry.shelved->state;
    if (state.id != name_or_id && state.name != name_or_id) continue;
    const MutexLock lock(mutex_);
    const auto slot = slots_.find(state.id);
    if (slot != slots_.end()) slot->second.used_at = std::chrono::steady_clock::now();
    return entry.shelved;
  }
  return fail(Errc::kNotFound, "no template " + std::string(name_or_id) + " lies on this host");
}

Result<void> TemplateShelf::check_file_system(std::uint64_t bytes) const {
  struct statvfs space {};
  if (::statvfs(options_.folder.c_str(), &space) != 0) {
    return fail(Errc::kIo, options_.folder.string() + ": " + std::strerror(errno));
  }
  const std::uint64_t left = std::uint64_t{space.f_bavail} * space.f_frsize;
  if (bytes <= left) return {};
  return fail(Errc::kUnavailable, "RAM files need " + mib(bytes) + ", but " +
                                      options_.folder.parent_path().string() + " has " + mib(left) +
                                      " left: enlarge that tmpfs, or remove templates");
}

Result<void> TemplateShelf::make_room(std::uint64_t bytes) {
  if (bytes > options_.bytes_max) {
    return fail(Errc::kUnavailable, "a template of " + mib(bytes) + " is more than the " +
                                        mib(options_.bytes_max) +
                                        " that this host's agent keeps (--template-mib)");
  }
  while (true) {
    std::uint64_t unused = 0;
    std::optional<std::string> oldest;
    {
      const MutexLock lock(mutex_);
      std::chrono::steady_clock::time_point oldest_use;
      for (const auto& [id, slot] : slots_) {
        const RamFile file = look_at(slot.shelved->ram_file());
        if (file.links > 1 || slot.shelved.use_count() > 1) continue;
        unused += file.bytes;
        if (!oldest || slot.used_at < oldest_use) {
          oldest = id;
          oldest_use = slot.used_at;
        }
      }
    }
    const auto room = check_file_system(bytes);
    if (unused + bytes <= options_.bytes_max && room) return {};
    if (!oldest) return room ? Result<void>() : tl::unexpected(room.error());
    log_info("template evicted id={}", *oldest);
    remove(*oldest);
  }
}

Result<fs::path> TemplateShelf::begin(const std::string& id) {
  const fs::path folder = options_.folder / "templates" / id;
  TRY(make_folder(folder));
  return folder;
}

Result<std::shared_ptr<const ShelvedTemplate>> TemplateShelf::keep(const TemplateState& state) {
  const fs::path folder = options_.folder / "templates" / state.id;
  const fs::path partial = folder / "state.new";
  TRY(write_file(partial, state.serialize()));
  std::error_code error;
  fs::rename(partial, folder / kStateFile, error);
  if (error) return io(folder, error);
  auto shelved =
      std::make_shared<const ShelvedTemplate>(ShelvedTemplate{.state = state, .folder = folder});
  const MutexLock lock(mutex_);
  slots_[state.id] = {.shelved = shelved, .used_at = std::chrono::steady_clock::now()};
  return shelved;
}

void TemplateShelf::remove(const std::string& id) {
  {
    const MutexLock lock(mutex_);
    slots_.erase(id);
  }
  discard(options_.folder / "templates" / id);
}

Result<void> TemplateShelf::lay_ticket(const ShelvedTemplate& shelved, const VmId& vm) const {
  const fs::path ticket = options_.folder / "forks" / vm.uuid;
  TRY(make_folder(ticket));
  std::error_code error;
  fs::create_hard_link(shelved.ram_file(), ticket / shelved.state.ram_block, error);
  if (!error) return {};
  discard(ticket);
  return io(shelved.ram_file(), error);
}

bool TemplateShelf::take_ticket_back(const VmId& vm) const {
  std::error_code error;
  return fs::remove_all(options_.folder / "forks" / vm.uuid, error) > 0;
}

Result<void> TemplateShelf::note(const VmIdentity& vm, Maker maker) const {
  const std::string text = (maker == Maker::kLeader ? "leader " : "fork ") + vm.name;
  return write_file(options_.folder / "pending" / vm.id.uuid, std::as_bytes(std::span(text)));
}

void TemplateShelf::settle(const VmId& vm) const {
  std::error_code error;
  fs::remove(options_.folder / "pending" / vm.uuid, error);
}

std::vector<TemplateShelf::Pending> TemplateShelf::pending() const {
  std::vector<Pending> found;
  for (const fs::path& note : children(options_.folder / "pending")) {
    std::ifstream file(note);
    std::string word;
    std::string name;
    file >> word >> name;
    found.push_back({.vm = {.name = name, .id = {note.filename()}},
                     .maker = word == "leader" ? Maker::kLeader : Maker::kFork});
  }
  return found;
}

fs::path shelf_folder(const fs::path& qemu_conf) {
  static const std::regex setting(R"re(\s*memory_backing_dir\s*=\s*"([^"]+)"\s*)re");
  fs::path folder = "/var/lib/libvirt/qemu/ram";
  std::ifstream file(qemu_conf);
  std::smatch found;
  for (std::string line; std::getline(file, line);) {
    if (std::regex_match(line, found, setting)) folder = found[1].str();
  }
  return folder / "samepage";
}

}  // namespace samepage::migrator
