#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/mutex.h"
#include "core/vm_control.h"
#include "migrator/domain_xml.h"

namespace samepage::fakes {

/// VMs that exist in memory only, as libvirt would make them: a leader gets a RAM file, save()
/// writes `saved`, restore() moves a ticket like the hook does.
/// Threads: every method may be called from any thread.
class FakeVmControl final : public VmControl {
 public:
  explicit FakeVmControl(std::filesystem::path backing_dir)
      : backing_dir_(std::move(backing_dir)) {}

  // The script.

  /// What a VM has used more, each time it is asked.
  std::atomic<std::chrono::milliseconds> work{};

  std::vector<std::byte> saved;              ///< What save() writes.
  std::string ram = std::string(4096, 'R');  ///< What a leader's RAM file holds.
  bool has_hook = true;                      ///< Tickets are taken.
  std::string serial;                        ///< Text that a started VM puts on its serial line.
  std::map<std::string, Error> fail;         ///< By method: what it answers instead.
  std::vector<std::string> ran_in_guests;    ///< "UUID PROGRAM".
  bool leader_dies = false;  ///< A VM that was started has ended when it is looked at.

  struct Vm {
    std::string xml;
    bool running = false;
    std::vector<std::string> devices = {};
  };
  std::map<VmId, Vm> vms;

  // VmControl.

  Result<VmId> start(const std::string& xml) override {
    TRY(begin("start"));
    const VmId id{between(xml, "<uuid>", "</uuid>")};
    vms[id] = {.xml = xml, .running = true};
    const auto folder =
        backing_dir_ / "libvirt" / "qemu" / ("1-" + between(xml, "<name>", "</name>"));
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "pc.ram") << ram;
    const auto path = migrator::serial_file(xml);
    if (path && !path->empty()) std::ofstream(*path) << serial;
    if (leader_dies) vms.erase(id);
    return id;
  }

  Result<void> restore(const std::string& save_image) override {
    TRY(begin("restore"));
    std::ifstream file(save_image, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)),
                           std::istreambuf_iterator<char>());
    const VmId id{between(text, "<uuid>", "</uuid>")};
    if (has_hook) std::filesystem::remove_all(backing_dir_ / "samepage" / "forks" / id.uuid);
    vms[id] = {.xml = text, .running = false};
    return {};
  }

  Result<void> suspend(const VmId& vm) override {
    TRY(begin("suspend"));
    vms[vm].running = false;
    return {};
  }
  Result<void> resume(const VmId& vm) override {
    TRY(begin("resume"));
    vms[vm].running = true;
    return {};
  }
  Result<void> save(const VmId& vm, const std::string& save_image) override {
    TRY(begin("save"));
    std::ofstream(save_image, std::ios::binary)
        .write(reinterpret_cast<const char*>(saved.data()),
               static_cast<std::streamsize>(saved.size()));
    forget(vm);
    return {};
  }
  Result<void> attach(const VmId& vm, const std::string& device) override {
    TRY(begin("attach"));
    vms[vm].devices.push_back(device);
    return {};
  }
  Result<bool> is_running(const VmId& vm) override {
    const auto found = vms.find(vm);
    if (found == vms.end()) return samepage::fail(Errc::kNotFound, "no such VM");
    return found->second.running;
  }
  Result<std::chrono::nanoseconds> cpu_time(const VmId& vm) override {
    TRY(begin("cpu_time"));
    if (!vms.contains(vm)) return samepage::fail(Errc::kNotFound, "no such VM");
    return used_ += work.load();
  }
  Result<bool> agent_answers(const VmId& /*vm*/) override { return true; }
  Result<void> run_in_guest(const VmId& vm, const std::string& program) override {
    ran_in_guests.push_back(vm.uuid + " " + program);
    return begin("run_in_guest");
  }
  Result<std::string> xml(const VmId& vm) override {
    const auto found = vms.find(vm);
    if (found == vms.end()) return samepage::fail(Errc::kNotFound, "no such VM");
    return found->second.xml;
  }
  Result<void> end(const VmId& vm) override {
    TRY(begin("end"));
    forget(vm);
    return {};
  }

 private:
  Result<void> begin(const std::string& method) {
    const auto found = fail.find(method);
    if (found == fail.end()) return {};
    return tl::unexpected(found->second);
  }

  /// As libvirt does, with the folder of the VM's RAM file.
  void forget(const VmId& vm) {
    const auto found = vms.find(vm);
    if (found == vms.end()) return;
    const std::string name = between(found->second.xml, "<name>", "</name>");
    std::filesystem::remove_all(backing_dir_ / "libvirt" / "qemu" / ("1-" + name));
    vms.erase(found);
  }

  static std::string between(const std::string& text, const std::string& open,
                             const std::string& close) {
    const std::size_t begin = text.find(open);
    if (begin == std::string::npos) return {};
    const std::size_t from = begin + open.size();
    return text.substr(from, text.find(close, from) - from);
  }

  std::filesystem::path backing_dir_;
  std::chrono::nanoseconds used_{0};
};

}  // namespace samepage::fakes
