#include "tools/samepage/fork_checks.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>

#include <linux/magic.h>
#include <sys/vfs.h>

#include "tools/samepage/fork_hook.h"

namespace samepage::cli {
namespace {

namespace fs = std::filesystem;
using Verdict = Check::Verdict;

constexpr const char* kMark = "samepage/forks";

std::string text_of(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// The hook that serves forks; empty when there is none that could be run.
fs::path find_hook(const ForkPlaces& places) {
  std::vector<fs::path> candidates = {fs::path(places.hooks_folder) / "qemu"};
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(places.hooks_folder + "/qemu.d", error)) {
    candidates.push_back(entry.path());
  }
  for (const fs::path& path : candidates) {
    const auto permissions = fs::status(path, error).permissions();
    const bool runs = (permissions & fs::perms::owner_exec) != fs::perms::none;
    if (runs && text_of(path).find(kMark) != std::string::npos) return path;
  }
  return {};
}

/// Empty when it is not set.
std::string ram_folder(const ForkPlaces& places) {
  static const std::regex setting(R"re(\s*memory_backing_dir\s*=\s*"([^"]+)"\s*)re");
  std::ifstream file(places.qemu_conf);
  std::string folder;
  std::smatch found;
  for (std::string line; std::getline(file, line);) {
    if (std::regex_match(line, found, setting)) folder = found[1];
  }
  return folder;
}

bool is_tmpfs(fs::path folder) {
  while (!fs::exists(folder) && folder.has_parent_path()) folder = folder.parent_path();
  struct statfs found {};
  return ::statfs(folder.c_str(), &found) == 0 && found.f_type == TMPFS_MAGIC;
}

Check check_hook(const ForkPlaces& places) {
  const fs::path hook = find_hook(places);
  if (!hook.empty()) {
    return {.name = "fork_hook", .verdict = Verdict::kOk, .found = hook.string(), .mend = {}};
  }
  return {.name = "fork_hook",
          .verdict = Verdict::kWarn,
          .found = "libvirt has no hook for forks: VMs cannot boot from templates here",
          .mend = "`samepage doctor --fix`, then restart libvirtd, which guests do not notice"};
}

Check check_ram_folder(const ForkPlaces& places) {
  const std::string folder = ram_folder(places);
  const std::string mend = "set memory_backing_dir in " + places.qemu_conf +
                           " to a folder on a tmpfs, or `samepage doctor --fix`; then restart "
                           "libvirtd";
  if (folder.empty()) {
    return {.name = "ram_files",
            .verdict = Verdict::kWarn,
            .found = "RAM files of VMs go to libvirt's own folder, on a disk",
            .mend = mend};
  }
  const bool good = is_tmpfs(folder);
  return {.name = "ram_files",
          .verdict = good ? Verdict::kOk : Verdict::kWarn,
          .found = folder + (good ? ", on a tmpfs" : ", which is not on a tmpfs"),
          .mend = good ? "" : mend};
}

}  // namespace

std::vector<Check> check_forks(const ForkPlaces& places) {
  return {check_hook(places), check_ram_folder(places)};
}

Result<std::vector<std::string>> mend_forks(const ForkPlaces& places) {
  std::vector<std::string> done;
  std::error_code error;
  if (find_hook(places).empty()) {
    const fs::path hook = fs::path(places.hooks_folder) / "qemu.d" / "samepage";
    fs::create_directories(hook.parent_path(), error);
    std::ofstream(hook, std::ios::trunc) << kForkHook;
    fs::permissions(hook, fs::perms(0755), error);
    if (error || text_of(hook) != kForkHook) {
      return fail(Errc::kIo, hook.string() + " cannot be written: run this as root");
    }
    done.push_back("installed " + hook.string());
  }
  if (ram_folder(places).empty()) {
    std::ofstream(places.qemu_conf, std::ios::app)
        << "\n# RAM files of VMs and boot templates, for samepaged.\nmemory_backing_dir = \""
        << places.ram_folder << "\"\n";
    if (ram_folder(places) != places.ram_folder) {
      return fail(Errc::kIo, places.qemu_conf + " cannot be written: run this as root");
    }
    done.push_back("set memory_backing_dir = \"" + places.ram_folder + "\" in " + places.qemu_conf);
  }
  return done;
}

}  // namespace samepage::cli
