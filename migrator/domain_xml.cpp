#include "migrator/domain_xml.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <sstream>

#include <fmt/format.h>
#include <pugixml.hpp>

#include "core/vm_metadata.h"

namespace samepage::migrator {
namespace {

constexpr std::size_t kUuidBytes = 36;

Result<pugi::xml_node> parse(pugi::xml_document& document, std::string_view text,
                             const char* root) {
  const auto parsed = document.load_buffer(text.data(), text.size());
  if (!parsed) return fail(Errc::kInvalid, std::string("not XML: ") + parsed.description());
  const pugi::xml_node node = document.child(root);
  if (!node) return fail(Errc::kInvalid, std::string("not the XML of a <") + root + ">");
  return node;
}

std::string text_of(const pugi::xml_node& node) {
  std::ostringstream text;
  node.print(text, "  ", pugi::format_default | pugi::format_no_declaration);
  return text.str();
}

pugi::xml_node child(pugi::xml_node parent, const char* name) {
  pugi::xml_node found = parent.child(name);
  return found ? found : parent.append_child(name);
}

void set_attribute(pugi::xml_node node, const char* name, const char* value) {
  pugi::xml_attribute attribute = node.attribute(name);
  if (!attribute) attribute = node.append_attribute(name);
  attribute.set_value(value);
}

void set_text(pugi::xml_node domain, const char* name, const std::string& value) {
  child(domain, name).text().set(value.c_str());
}

/// "serial/web.log" becomes "serial/web3.log". A file that is not named after the VM would be
/// written by several, so it gets the VM's name behind its own.
void rename_file(pugi::xml_node source, const std::string& before, const std::string& after) {
  std::string path = source.attribute("path").value();
  const std::size_t file = path.rfind('/') + 1;
  const std::size_t at = path.find(before, file);
  if (at == std::string::npos) {
    path += "." + after;
  } else {
    path.replace(at, before.size(), after);
  }
  source.attribute("path").set_value(path.c_str());
}

void rename_files(pugi::xml_node domain, const std::string& before, const std::string& after) {
  for (const char* kind : {"serial", "console", "parallel", "channel"}) {
    for (const pugi::xml_node device : domain.child("devices").children(kind)) {
      const pugi::xml_node source = device.child("source");
      if (source.attribute("path") && std::string_view(device.attribute("type").value()) != "pty") {
        rename_file(source, before, after);
      }
    }
  }
}

/// What the guest reads of itself. QEMU hands it out at the moment of reading, so a fork reads its
/// own; the guest knows the length from before the fork, so that is the same for all.
std::string identity_text(const VmIdentity& identity, const char* role) {
  constexpr std::size_t kIdentityBytes = 128;
  std::string text = identity.id.uuid + " " + identity.name + " " + role + " ";
  text.resize(std::max(text.size(), kIdentityBytes), '=');
  return text;
}

void tell_identity(pugi::xml_node domain, const VmIdentity& identity, const char* role) {
  constexpr const char* kEntry = "opt/org.samepage/identity";
  pugi::xml_node info = domain.find_child_by_attribute("sysinfo", "type", "fwcfg");
  if (!info) {
    info = domain.append_child("sysinfo");
    info.append_attribute("type").set_value("fwcfg");
  }
  pugi::xml_node entry = info.find_child_by_attribute("entry", "name", kEntry);
  if (!entry) {
    entry = info.append_child("entry");
    entry.append_attribute("name").set_value(kEntry);
  }
  entry.text().set(identity_text(identity, role).c_str());
}

bool is_of_the_store(pugi::xml_node disk) {
  const pugi::xml_node source = disk.child("source");
  return std::string_view(source.attribute("protocol").value()) == "nbd" &&
         std::string_view(source.child("host").attribute("transport").value()) == "unix";
}

void connect_disk(pugi::xml_node domain, const std::string& socket) {
  if (socket.empty()) return;
  for (const pugi::xml_node disk : domain.child("devices").children("disk")) {
    if (is_of_the_store(disk)) {
      set_attribute(disk.child("source").child("host"), "socket", socket.c_str());
    }
  }
}

void identify(pugi::xml_node domain, const VmIdentity& identity, const char* role) {
  const std::string before = domain.child("name").text().get();
  set_text(domain, "name", identity.name);
  set_text(domain, "uuid", identity.id.uuid);
  tell_identity(domain, identity, role);
  connect_disk(domain, identity.disk_socket);
  if (!before.empty()) rename_files(domain, before, identity.name);
}

void share_ram_file(pugi::xml_node domain, const char* access) {
  const pugi::xml_node backing = child(domain, "memoryBacking");
  set_attribute(child(backing, "source"), "type", "file");
  set_attribute(child(backing, "access"), "mode", access);
}

/// Of our elements in the metadata the one of this namespace; none when there is none.
pugi::xml_node metadata_of(pugi::xml_node domain, std::string_view name_space) {
  return domain.child("metadata").find_child([&](pugi::xml_node element) {
    return element.find_attribute([&](pugi::xml_attribute attribute) {
      return std::string_view(attribute.name()).starts_with("xmlns") &&
             attribute.value() == name_space;
    });
  });
}

void name_template(pugi::xml_node domain, const std::string& id) {
  pugi::xml_node element = metadata_of(domain, kTemplateMetadataNamespace);
  if (!element) {
    element = child(domain, "metadata").append_child("samepage:template");
    element.append_attribute("xmlns:samepage").set_value(kTemplateMetadataNamespace);
  }
  element.text().set(id.c_str());
}

Result<void> refuse(bool present, const char* what) {
  if (!present) return {};
  return fail(Errc::kInvalid, std::string("a template cannot have ") + what);
}

bool is_written(pugi::xml_node disk) {
  const std::string_view kind = disk.attribute("device").as_string("disk");
  return !disk.child("readonly") && kind != "cdrom";
}

/// The disk of the store takes the place of the one that the domain would write to.
Result<void> replace_disk(pugi::xml_node devices, std::string_view element) {
  if (element.empty()) return {};
  pugi::xml_document document;
  const pugi::xml_node disk = TRY(parse(document, element, "disk"));
  const pugi::xml_node before = devices.find_child([](pugi::xml_node node) {
    return std::string_view(node.name()) == "disk" && is_written(node);
  });
  if (!before) {
    devices.append_copy(disk);
    return {};
  }
  pugi::xml_node placed = devices.insert_copy_before(disk, before);
  if (const pugi::xml_node target = before.child("target")) {
    placed.remove_child("target");
    placed.append_copy(target);
  }
  devices.remove_child(before);
  return {};
}

/// What would change the template's pages from outside the guest, or needs the RAM to be shared.
Result<void> check_leader(pugi::xml_node domain, bool has_disk) {
  const pugi::xml_node devices = domain.child("devices");
  TRY(refuse(domain.child("name").text().empty(), "no name"));
  TRY(refuse(static_cast<bool>(domain.child("cpu").child("numa")), "NUMA nodes"));
  TRY(refuse(static_cast<bool>(domain.child("memoryBacking").child("hugepages")), "huge pages"));
  TRY(refuse(static_cast<bool>(devices.child("memory")), "memory devices"));
  TRY(refuse(static_cast<bool>(devices.child("hostdev")), "devices of the host"));
  TRY(refuse(static_cast<bool>(devices.child("filesystem")), "file systems of the host"));
  for (const pugi::xml_node disk : devices.children("disk")) {
    // Every fork would write to the leader's disk.
    TRY(refuse(is_written(disk) && !(has_disk && is_of_the_store(disk)),
               "a disk that VMs write to; --image gives every VM one of its own"));
  }
  for (const pugi::xml_node nic : devices.children("interface")) {
    TRY(refuse(std::string_view(nic.attribute("type").value()) == "vhostuser", "vhost-user"));
  }
  return {};
}

void remove_balloon(pugi::xml_node domain) {
  pugi::xml_node devices = child(domain, "devices");
  while (devices.remove_child("memballoon")) {
  }
  devices.append_child("memballoon").append_attribute("model").set_value("none");
}

std::uint64_t bytes_of(const pugi::xml_node& memory) {
  const std::string_view unit = memory.attribute("unit").as_string("KiB");
  static const std::map<std::string_view, unsigned> shifts = {
      {"b", 0},    {"bytes", 0}, {"k", 10},   {"KiB", 10}, {"M", 20},
      {"MiB", 20}, {"G", 30},    {"GiB", 30}, {"T", 40},   {"TiB", 40}};
  const auto shift = shifts.find(unit);
  if (shift == shifts.end()) return 0;
  return memory.text().as_ullong() << shift->second;
}

}  // namespace

Result<LeaderXml> leader_xml(std::string_view domain_text, const VmIdentity& identity,
                             std::string_view disk) {
  pugi::xml_document document;
  const pugi::xml_node domain = TRY(parse(document, domain_text, "domain"));
  pugi::xml_node devices = child(domain, "devices");
  TRY(replace_disk(devices, disk));
  TRY(check_leader(domain, !disk.empty()));
  LeaderXml leader;
  while (const pugi::xml_node nic = devices.child("interface")) {
    leader.nics.push_back(text_of(nic));
    devices.remove_child(nic);
  }
  remove_balloon(domain);
  share_ram_file(domain, "shared");
  child(domain, "genid");
  identify(domain, identity, "leader");
  leader.xml = text_of(domain);
  return leader;
}

Result<std::string> fork_xml(std::string_view leader, const VmIdentity& identity,
                             const std::string& template_id) {
  pugi::xml_document document;
  const pugi::xml_node domain = TRY(parse(document, leader, "domain"));
  share_ram_file(domain, "private");
  name_template(domain, template_id);
  identify(domain, identity, "vm");
  return text_of(domain);
}

Result<std::string> cold_xml(const LeaderXml& leader, const VmIdentity& identity) {
  pugi::xml_document document;
  pugi::xml_node domain = TRY(parse(document, leader.xml, "domain"));
  domain.remove_child("memoryBacking");
  identify(domain, identity, "vm");
  unsigned index = 0;
  for (const std::string& nic : leader.nics) {
    pugi::xml_document one;
    const std::string card = TRY(nic_xml(nic, identity.id, index++));
    const pugi::xml_node interface = TRY(parse(one, card, "interface"));
    domain.child("devices").append_copy(interface);
  }
  return text_of(domain);
}

Result<std::string> nic_xml(std::string_view nic, const VmId& id, unsigned index) {
  pugi::xml_document document;
  pugi::xml_node interface = TRY(parse(document, nic, "interface"));
  // 52:54:00 is QEMU's; a random UUID's end is random, and the same whenever the VM is made anew.
  TRY(check_vm_id(id));
  const unsigned long own =
      std::strtoul(id.uuid.substr(kUuidBytes - 6).c_str(), nullptr, 16) + index;
  const std::string mac = fmt::format("52:54:00:{:02x}:{:02x}:{:02x}", own >> 16U & 0xFFU,
                                      own >> 8U & 0xFFU, own & 0xFFU);
  set_attribute(child(interface, "mac"), "address", mac.c_str());
  // Where it is plugged in, and how the host's end is called, is for libvirt to choose anew.
  for (const char* chosen : {"address", "target", "alias"}) interface.remove_child(chosen);
  return text_of(interface);
}

Result<DomainSummary> summarize_domain(std::string_view text) {
  pugi::xml_document document;
  const pugi::xml_node domain = TRY(parse(document, text, "domain"));
  const pugi::xml_node shared = metadata_of(domain, kVmMetadataNamespace);
  return DomainSummary{
      .name = domain.child("name").text().get(),
      .memory_bytes = bytes_of(domain.child("memory")),
      .vcpus = domain.child("vcpu").text().as_uint(1),
      .sharing_domain = shared ? sharing_domain_in(text_of(shared)) : VmInfo().sharing_domain};
}

Result<std::string> serial_file(std::string_view text) {
  pugi::xml_document document;
  const pugi::xml_node domain = TRY(parse(document, text, "domain"));
  const pugi::xml_node serial = domain.child("devices").child("serial");
  if (std::string_view(serial.attribute("type").value()) != "file") return std::string();
  return std::string(serial.child("source").attribute("path").value());
}

bool has_agent_channel(std::string_view text) {
  pugi::xml_document document;
  const auto domain = parse(document, text, "domain");
  if (!domain) return false;
  for (const pugi::xml_node channel : domain->child("devices").children("channel")) {
    const std::string_view name = channel.child("target").attribute("name").value();
    if (name == "org.qemu.guest_agent.0") return true;
  }
  return false;
}

bool has_network_card(std::string_view text) {
  pugi::xml_document document;
  const auto domain = parse(document, text, "domain");
  return domain && domain->child("devices").child("interface");
}

std::vector<std::string> nbd_sockets(std::string_view text) {
  std::vector<std::string> sockets;
  pugi::xml_document document;
  const auto domain = parse(document, text, "domain");
  if (!domain) return sockets;
  for (const auto& found : domain->select_nodes("devices/disk//source[@protocol='nbd']/host")) {
    std::string socket = found.node().attribute("socket").value();
    const bool is_new = std::ranges::find(sockets, socket) == sockets.end();
    if (is_new && !socket.empty()) sockets.push_back(std::move(socket));
  }
  return sockets;
}

std::optional<std::string> ram_block_of(std::string_view file) {
  if (file == "pc.ram" || file == "ram-node0") return std::string(file);
  return std::nullopt;
}

Result<void> check_vm_id(const VmId& vm) {
  const bool fits = vm.uuid.size() == kUuidBytes &&
                    vm.uuid.find_first_not_of("0123456789abcdef-") == std::string::npos;
  if (!fits) return fail(Errc::kInvalid, "a VM's UUID is malformed");
  return {};
}

}  // namespace samepage::migrator
