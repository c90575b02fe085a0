#include "tools/samepaged/disks.h"

namespace samepage::agent {
namespace {

std::string escape(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '\'':
        escaped += "&apos;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

}  // namespace

std::string Disks::xml(const std::string& name, const std::string& target) const {
  // libvirt 9.0 cannot tell QEMU to wait for an NBD server that comes back. So QEMU pauses the VM
  // instead of reporting an error to the guest, and repeats the request when it goes on.
  return "<disk type='network' device='disk'>\n"
         "  <driver name='qemu' type='raw' cache='none' discard='unmap' error_policy='stop'"
         " rerror_policy='stop'/>\n"
         "  <source protocol='nbd'>\n"
         "    <host transport='unix' socket='" +
         escape(socket_of(name)) +
         "'/>\n"
         "  </source>\n"
         "  <target dev='" +
         escape(target) +
         "' bus='virtio'/>\n"
         "</disk>\n";
}

}  // namespace samepage::agent
