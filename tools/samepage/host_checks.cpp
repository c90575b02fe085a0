#include "tools/samepage/host_checks.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <optional>
#include <sstream>
#include <system_error>

#include <fcntl.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/curve_keys.h"
#include "core/fd.h"
#include "core/handle.h"
#include "fingerprinter/change_tracker.h"

namespace samepage::cli {
namespace {

using Verdict = Check::Verdict;
using Connection = Handle<virConnect, virConnectClose>;

constexpr std::chrono::seconds kLibvirtTimeMax{10};

// libvirt's encoding of versions: major * 1,000,000 + minor * 1,000 + release.
constexpr unsigned long kLibvirtVersionMin = 9'000'000;
constexpr unsigned long kQemuVersionMin = 7'002'000;

std::string reason(int error) {
  return std::generic_category().message(error);
}

std::string version_text(unsigned long version) {
  return std::to_string(version / 1'000'000) + "." + std::to_string(version / 1'000 % 1'000) + "." +
         std::to_string(version % 1'000);
}

struct HypervisorVersions {
  unsigned long libvirt = 0;
  unsigned long qemu = 0;
  std::array<char, 256> error{};  // Empty when the connection worked.
};

/// Runs in the child process: libvirt's calls have no deadline.
HypervisorVersions ask_libvirt(const std::string& uri) {
  virSetErrorFunc(nullptr, [](void*, virErrorPtr) {});
  HypervisorVersions versions;
  const Connection connection(virConnectOpenReadOnly(uri.c_str()));
  const bool answered = connection &&
                        virConnectGetLibVersion(connection.get(), &versions.libvirt) == 0 &&
                        virConnectGetVersion(connection.get(), &versions.qemu) == 0;
  if (!answered) {
    const std::string message = virGetLastErrorMessage();
    message.copy(versions.error.data(), versions.error.size() - 1);
    if (message.empty()) versions.error[0] = '?';
  }
  return versions;
}

/// Reads exactly one HypervisorVersions, or fails by the deadline.
bool read_versions(int pipe, HypervisorVersions& versions, Deadline deadline) {
  auto* bytes = reinterpret_cast<char*>(&versions);
  std::size_t size = 0;
  while (size < sizeof(versions)) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Deadline::clock::now());
    pollfd ready{.fd = pipe, .events = POLLIN, .revents = 0};
    if (left.count() <= 0) return false;
    if (::poll(&ready, 1, static_cast<int>(left.count())) <= 0) continue;
    const ssize_t got = ::read(pipe, bytes + size, sizeof(versions) - size);
    if (got <= 0) return false;
    size += static_cast<std::size_t>(got);
  }
  return true;
}

std::optional<HypervisorVersions> ask_libvirt_in_child(const std::string& uri) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return std::nullopt;
  const Fd from_child(ends[0]);
  Fd to_parent(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return std::nullopt;
  if (child == 0) {
    const HypervisorVersions versions = ask_libvirt(uri);
    const ssize_t written = ::write(to_parent.get(), &versions, sizeof(versions));
    ::_exit(written == static_cast<ssize_t>(sizeof(versions)) ? 0 : 1);
  }
  to_parent.reset();
  HypervisorVersions versions;
  const bool answered =
      read_versions(from_child.get(), versions, Deadline::clock::now() + kLibvirtTimeMax);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  return answered ? std::optional(versions) : std::nullopt;
}

Check check_version(const char* name, unsigned long version, unsigned long version_min) {
  if (version >= version_min) {
    return {.name = name, .verdict = Verdict::kOk, .found = version_text(version), .mend = {}};
  }
  return {.name = name,
          .verdict = Verdict::kFail,
          .found = version_text(version),
          .mend = "upgrade it to " + version_text(version_min) + " or later"};
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

Check check_ksm(const std::string& folder) {
  const std::string run = first_line(folder + "/run");
  const std::string file = folder + "/run";
  if (run == "1") {
    return {.name = "ksm",
            .verdict = Verdict::kOk,
            .found = "running, " + first_line(folder + "/pages_sharing") + " pages saved",
            .mend = {}};
  }
  if (run.empty()) {
    return {.name = "ksm",
            .verdict = Verdict::kFail,
            .found = "this kernel has no KSM",
            .mend = "boot a kernel built with CONFIG_KSM"};
  }
  return {.name = "ksm",
          .verdict = Verdict::kWarn,
          .found = "stopped",
          .mend = "equal pages are not merged until `echo 1 > " + file + "`"};
}

/// Reads this process's own pagemap entry: the kernel hides frame numbers from the unprivileged.
Check check_pagemap() {
  const char here = 1;
  const auto page = reinterpret_cast<std::uintptr_t>(&here) / 4096;
  std::uint64_t entry = 0;
  const Fd pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  const bool read = pagemap && ::pread(pagemap.get(), &entry, sizeof(entry),
                                       static_cast<off_t>(page * sizeof(entry))) ==
                                   static_cast<ssize_t>(sizeof(entry));
  constexpr std::uint64_t kFrameMask = (std::uint64_t{1} << 55U) - 1;
  const bool frames = read && (entry & kFrameMask) != 0;
  return {.name = "pagemap",
          .verdict = frames ? Verdict::kOk : Verdict::kFail,
          .found = frames ? "page frame numbers are readable" : "page frame numbers are hidden",
          .mend = frames ? "" : "run as root; the agent needs CAP_SYS_ADMIN"};
}

Check check_page_flags(const std::string& path) {
  std::uint64_t flags = 0;
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const bool readable =
      file && ::pread(file.get(), &flags, sizeof(flags), 0) == static_cast<ssize_t>(sizeof(flags));
  return {.name = "kpageflags",
          .verdict = readable ? Verdict::kOk : Verdict::kFail,
          .found = readable ? path + " is readable" : path + ": " + reason(errno),
          .mend = readable ? "" : "run as root, on a kernel built with CONFIG_PROC_PAGE_MONITOR"};
}

Check check_pagemap_scan() {
  // Linux 6.7's ioctl on pagemap; Debian 12's headers are older. With a size of zero it does
  // nothing but refuse: EINVAL where it is known, ENOTTY where it is not.
  std::array<std::uint64_t, 12> arguments{};
  const auto scan = _IOWR('f', 16, decltype(arguments));
  const Fd pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  const int result = pagemap ? ::ioctl(pagemap.get(), scan, arguments.data()) : -1;
  const bool known = result < 0 && errno == EINVAL;
  return {.name = "pagemap_scan",
          .verdict = known ? Verdict::kOk : Verdict::kWarn,
          .found = known ? "available" : "not in this kernel",
          .mend = known ? "" : "scans cost more CPU time; Linux 6.7 brings it"};
}

Check check_tracker() {
  const std::string others = fingerprinter::kernel_tracks_soft_dirty() ? "soft-dirty" : "rotation";
  if (!fingerprinter::kernel_tracks_written_pages()) {
    return {.name = "tracker",
            .verdict = Verdict::kWarn,
            .found = others + " for every guest",
            .mend = "rescans read much of a guest's memory again; Linux 6.7 brings written-pages"};
  }
  return {.name = "tracker",
          .verdict = Verdict::kOk,
          .found = "written-pages for guests started with libsamepage-preload.so, " + others +
                   " for others",
          .mend = {}};
}

Check check_agent_key(const std::string& path) {
  const Result<CurveKeyPair> keys = load_curve_keys(path);
  if (keys) {
    return {.name = "agent_key",
            .verdict = Verdict::kOk,
            .found = path + ", public key " + keys->public_key,
            .mend = {}};
  }
  const bool absent = keys.error().code() == Errc::kNotFound;
  return {.name = "agent_key",
          .verdict = Verdict::kFail,
          .found = absent ? "there is no " + path : keys.error().message(),
          .mend = absent ? "samepaged makes it when it first starts"
                         : "move it away and restart samepaged, then enroll the new key"};
}

Check check_placer_key(const std::string& path) {
  const std::string key = first_line(path);
  const bool usable = is_curve_key(key);
  return {.name = "placer_key",
          .verdict = usable ? Verdict::kOk : Verdict::kFail,
          .found = usable ? path : path + " holds no public key",
          .mend = usable ? "" : "copy the placer's public key there; its log shows it at start"};
}

}  // namespace

std::vector<Check> check_hypervisor(const HostPlaces& places) {
  const std::string mend = "install libvirt-daemon-driver-qemu, then `systemctl start libvirtd`";
  std::vector<Check> checks;
  const std::optional<HypervisorVersions> versions = ask_libvirt_in_child(places.libvirt_uri);
  if (!versions) {
    checks.push_back({.name = "libvirt",
                      .verdict = Verdict::kFail,
                      .found = places.libvirt_uri + " does not answer",
                      .mend = "see `systemctl status libvirtd`"});
  } else if (versions->error[0] != '\0') {
    checks.push_back({.name = "libvirt",
                      .verdict = Verdict::kFail,
                      .found = versions->error.data(),
                      .mend = mend});
  } else {
    checks.push_back(check_version("libvirt", versions->libvirt, kLibvirtVersionMin));
    checks.push_back(check_version("qemu", versions->qemu, kQemuVersionMin));
  }
  const bool kvm = ::access(places.kvm_device.c_str(), R_OK | W_OK) == 0;
  checks.push_back(
      {.name = "kvm",
       .verdict = kvm ? Verdict::kOk : Verdict::kWarn,
       .found = kvm ? places.kvm_device + " is usable" : places.kvm_device + " is not usable",
       .mend = kvm ? "" : "guests run emulated, slowly; enable virtualization"});
  return checks;
}

std::vector<Check> check_kernel(const HostPlaces& places) {
  return {check_ksm(places.ksm_folder), check_pagemap(), check_page_flags(places.page_flags),
          check_pagemap_scan(), check_tracker()};
}

std::vector<Check> check_keys(const HostPlaces& places) {
  return {check_agent_key(places.agent_key), check_placer_key(places.placer_key)};
}

}  // namespace samepage::cli
