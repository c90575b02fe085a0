#include "core/migration_obstacle.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

namespace samepage {
namespace {

struct Obstacle {
  std::string_view mark;  ///< How the element begins.
  std::string_view why;
};

constexpr std::array kObstacles{
    Obstacle{
        "<launchSecurity ",
        "its memory is encrypted (launchSecurity), so no host but its own can read it; shut it "
        "down and start it on the other host"},
    Obstacle{"<hostdev ",
             "it uses a device of this host (hostdev); detach the device (virsh detach-device), "
             "migrate, and attach one there"},
    Obstacle{"<interface type='hostdev'",
             "a network card of this host is passed through to it; detach it (virsh "
             "detach-interface), migrate, and attach one there"},
    Obstacle{"<filesystem ",
             "it shares a folder with this host (filesystem); unmount and detach it first"},
    Obstacle{"<shmem ",
             "it shares memory with other processes of this host (shmem); detach it first"},
};

constexpr std::string_view kSpace = " \t\r";
using QemuVersion = std::pair<int, int>;  // Major and minor.
constexpr QemuVersion kVersionMin{7, 2};
constexpr QemuVersion kInactiveDisksMove{10, 0};
constexpr std::array<std::string_view, 2> kDisks{"<disk ", "<nvram"};

/// Other people's words, which may hold anything.
std::string without_metadata(std::string_view xml) {
  std::string rest(xml);
  for (const auto& [begin, end] :
       {std::pair("<metadata", "</metadata>"), std::pair("<description>", "</description>")}) {
    const std::size_t from = rest.find(begin);
    const std::size_t to = rest.find(end);
    if (from != std::string::npos && to != std::string::npos && from < to) {
      rest.erase(from, to - from);
    }
  }
  return rest;
}

bool sets(std::string_view line, std::string_view name) {
  line.remove_prefix(std::min(line.find_first_not_of(kSpace), line.size()));
  if (!line.starts_with(name)) return false;
  line.remove_prefix(name.size());
  line.remove_prefix(std::min(line.find_first_not_of(kSpace), line.size()));
  if (!line.starts_with('=')) return false;
  line.remove_prefix(1);
  line.remove_prefix(std::min(line.find_first_not_of(kSpace), line.size()));
  return line.starts_with('1');
}

/// Of a text like "QEMU 7.2.22"; nothing when it is no QEMU's.
std::optional<QemuVersion> qemu_version(std::string_view text) {
  const std::size_t digits = text.find_first_of("0123456789");
  if (!text.starts_with("QEMU ") || digits == std::string_view::npos) return std::nullopt;
  text.remove_prefix(digits);
  QemuVersion version;
  const char* const end = text.data() + text.size();
  const auto dot = std::from_chars(text.data(), end, version.first);
  if (dot.ec != std::errc() || dot.ptr == end) return std::nullopt;
  if (std::from_chars(dot.ptr + 1, end, version.second).ec != std::errc()) return std::nullopt;
  return version;
}

}  // namespace

std::optional<std::string> obstacle_in_domain(std::string_view xml) {
  const std::string looked_at = without_metadata(xml);
  for (const Obstacle& obstacle : kObstacles) {
    if (looked_at.find(obstacle.mark) != std::string::npos) return std::string(obstacle.why);
  }
  return std::nullopt;
}

std::optional<std::string> obstacle_in_qemu_conf(std::string_view text) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    if (sets(line, "migrate_tls_force")) {
      return "libvirt insists on TLS inside QEMU, which hides the pages; Samepage's agents encrypt "
             "all that they send, so set migrate_tls_force = 0 in /etc/libvirt/qemu.conf on both "
             "hosts and restart libvirtd";
    }
    text.remove_prefix(std::min(line.size() + 1, text.size()));
  }
  return std::nullopt;
}

std::optional<std::string> obstacle_in_version(std::string_view version) {
  const auto qemu = qemu_version(version);
  if (!qemu || *qemu >= kVersionMin) return std::nullopt;
  return "QEMU " + std::to_string(qemu->first) + "." + std::to_string(qemu->second) +
         " is older than 7.2, the first whose migration stream the relay knows; upgrade it, then "
         "restart the VM";
}

std::optional<std::string> obstacle_in_sleep(std::string_view xml, std::string_view version) {
  const auto qemu = qemu_version(version);
  if (!qemu || *qemu >= kInactiveDisksMove) return std::nullopt;
  const std::string looked_at = without_metadata(xml);
  const bool has_disks = std::ranges::any_of(
      kDisks, [&](std::string_view mark) { return looked_at.find(mark) != std::string::npos; });
  if (!has_disks) return std::nullopt;
  return "it is paused and has not run on this host, and QEMU before 10.0 would abort when it "
         "migrates disks that were never used; resume it first (virsh resume), if only for a "
         "moment";
}

}  // namespace samepage
