#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/hypervisor.h"
#include "core/result.h"

namespace samepage::migrator {

/// What distinguishes one VM of a template from the others.
struct VmIdentity {
  std::string name;
  VmId id;
  std::string disk_socket = {};  ///< Of its disk, where it has one of the store.

  friend bool operator==(const VmIdentity&, const VmIdentity&) = default;
};

/// A domain that a leader can be booted from.
struct LeaderXml {
  std::string xml;
  std::vector<std::string> nics;  ///< Its <interface> elements, which were taken out.
};

/// Makes a leader of a domain: its RAM is a shared file, which survives it; no balloon returns
/// pages from under a template; its network cards are left out, because a card's address is part of
/// the state that forks would repeat, and are plugged into the forks. It becomes `identity`, and
/// files named after the domain (serial lines, say) become files named after the identity. The
/// guest can read who it is, also after a fork (docs/guest.md).
/// `disk` is the <disk> of the store that stands in for the one that the domain would write to;
/// empty: none.
/// kInvalid: it is no domain, or it has what no template can have, such as another disk that all
/// forks would write to; the message names it.
Result<LeaderXml> leader_xml(std::string_view domain, const VmIdentity& identity,
                             std::string_view disk = {});

/// The domain of a fork from that of its leader: the RAM file is mapped privately, so that no fork
/// writes to the template. Everything that named the leader names the fork, and its metadata say
/// which template it stands on, wherever it goes.
/// kInvalid: it is no domain.
Result<std::string> fork_xml(std::string_view leader, const VmIdentity& identity,
                             const std::string& template_id);

/// The domain for a boot of its own, without template: a leader's, with private anonymous memory
/// and with its network cards. kInvalid: it is no domain.
Result<std::string> cold_xml(const LeaderXml& leader, const VmIdentity& identity);

/// A network card for a fork: the given <interface> with an address of the fork's own, made from
/// its UUID. `index` tells apart the cards of one VM.
/// kInvalid: it is no <interface>.
Result<std::string> nic_xml(std::string_view nic, const VmId& id, unsigned index);

struct DomainSummary {
  std::string name;
  std::uint64_t memory_bytes = 0;
  unsigned vcpus = 0;
  std::string sharing_domain;  ///< As VmInfo's.
};
/// kInvalid: it is no domain.
Result<DomainSummary> summarize_domain(std::string_view domain);

/// The file that the domain's first serial line goes to; empty when it goes elsewhere.
Result<std::string> serial_file(std::string_view domain);

/// The UNIX sockets of NBD servers that its disks are read from, each once; none of what is no
/// domain.
std::vector<std::string> nbd_sockets(std::string_view domain);

/// Whether the guest's agent has a channel to the host.
bool has_agent_channel(std::string_view domain);

/// Whether the domain has one now: a leader's XML is without the cards that its forks get.
bool has_network_card(std::string_view domain);

/// The RAM block of which `file`, in libvirt's folder for the RAM files of a domain, holds the
/// pages: "pc.ram" of pc.ram; none for a file that is no RAM of one piece.
std::optional<std::string> ram_block_of(std::string_view file);

/// kInvalid: not a UUID in libvirt's text form, which is safe as a file's name.
Result<void> check_vm_id(const VmId& vm);

}  // namespace samepage::migrator
