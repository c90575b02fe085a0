#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace samepage {

// What cannot be migrated live, whoever tries, told before anything is done: QEMU and libvirt find
// out in the middle, and say it in words of their own. Pure functions.

/// Why a VM with this domain XML (as libvirt writes it) cannot leave its host, and what to do about
/// it, as one clause; nothing when it can.
std::optional<std::string> obstacle_in_domain(std::string_view xml);

/// The same of libvirt's qemu.conf: TLS inside QEMU hides the pages from the relay, which has its
/// own TLS.
std::optional<std::string> obstacle_in_qemu_conf(std::string_view text);

/// The same of a hypervisor's version, as "QEMU 7.2.22".
std::optional<std::string> obstacle_in_version(std::string_view version);

/// The same of a VM that is paused and has not run since it came to this host or was restored: its
/// disks are inactive, and a QEMU before 10.0 that is to migrate them then aborts.
std::optional<std::string> obstacle_in_sleep(std::string_view xml, std::string_view version);

}  // namespace samepage
