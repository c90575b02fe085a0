#include "migrator/image_domain.h"

#include <sstream>

#include <pugixml.hpp>

namespace samepage::migrator {
namespace {

pugi::xml_node add(pugi::xml_node parent, const char* name, const std::string& text = {}) {
  pugi::xml_node node = parent.append_child(name);
  if (!text.empty()) node.text().set(text.c_str());
  return node;
}

void put(pugi::xml_node node, const char* name, const std::string& value) {
  node.append_attribute(name).set_value(value.c_str());
}

void add_system(pugi::xml_node root, const ImageDomain& domain) {
  pugi::xml_node system = add(root, "os");
  pugi::xml_node type = add(system, "type", "hvm");
  put(type, "arch", "x86_64");
  put(type, "machine", "pc");
  if (domain.kernel.empty()) return;
  add(system, "kernel", domain.kernel);
  if (!domain.initrd.empty()) add(system, "initrd", domain.initrd);
  if (!domain.command_line.empty()) add(system, "cmdline", domain.command_line);
}

Result<void> add_nic(pugi::xml_node devices, const std::string& nic) {
  if (nic.empty()) return {};
  const std::size_t at = nic.find('=');
  const std::string kind = nic.substr(0, at);
  if (at == std::string::npos || at + 1 == nic.size() || (kind != "network" && kind != "bridge")) {
    return fail(Errc::kInvalid, "a network card is network=NAME or bridge=NAME, not " + nic);
  }
  pugi::xml_node interface = add(devices, "interface");
  put(interface, "type", kind);
  put(add(interface, "source"), kind.c_str(), nic.substr(at + 1));
  put(add(interface, "model"), "type", "virtio");
  return {};
}

Result<void> add_devices(pugi::xml_node root, const ImageDomain& domain) {
  pugi::xml_node devices = add(root, "devices");
  pugi::xml_node serial = add(devices, "serial");
  put(serial, "type", "file");
  put(add(serial, "source"), "path", domain.serial_folder + "/" + domain.name + ".serial.log");
  pugi::xml_node channel = add(devices, "channel");
  put(channel, "type", "unix");
  pugi::xml_node target = add(channel, "target");
  put(target, "type", "virtio");
  put(target, "name", "org.qemu.guest_agent.0");
  pugi::xml_node rng = add(devices, "rng");
  put(rng, "model", "virtio");
  put(add(rng, "backend", "/dev/urandom"), "model", "random");
  return add_nic(devices, domain.nic);
}

}  // namespace

Result<std::string> image_domain_xml(const ImageDomain& domain) {
  if (domain.memory_mib == 0 || domain.vcpus == 0) {
    return fail(Errc::kInvalid, "a VM has memory and processors");
  }
  pugi::xml_document document;
  pugi::xml_node root = document.append_child("domain");
  put(root, "type", domain.has_kvm ? "kvm" : "qemu");
  add(root, "name", domain.name);
  put(add(root, "memory", std::to_string(domain.memory_mib)), "unit", "MiB");
  add(root, "vcpu", std::to_string(domain.vcpus));
  add_system(root, domain);
  if (domain.has_kvm) put(add(root, "cpu"), "mode", "host-model");
  add(add(root, "features"), "acpi");
  TRY(add_devices(root, domain));
  std::ostringstream text;
  document.print(text, "  ", pugi::format_default | pugi::format_no_declaration);
  return text.str();
}

}  // namespace samepage::migrator
