// hypervisor_probe COMMAND...: LibvirtHypervisor's methods for tests/system/hypervisor_test.py, to
// be run inside a lab host. One JSON object a line; `at` is the monotonic clock in seconds.
//
//   vms | progress UUID | resume UUID | discard UUID | cancel UUID
//   migrate UUID MIGRATE_SOCKET CONTROL_SOCKET      also prints the events while it runs
//   watch                                            prints events and, at each line of stdin, vms

#include <chrono>
#include <exception>
#include <iostream>
#include <mutex>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/libvirt_hypervisor.h"

namespace samepage {
namespace {

using Json = nlohmann::json;

void print(Json line) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  line["at"] = std::chrono::duration<double>(now).count();
  std::cout << line.dump() << std::endl;
}

const char* name_of(VmState state) {
  if (state == VmState::kRunning) return "running";
  return state == VmState::kPaused ? "paused" : "other";
}

const char* name_of(VmEventKind kind) {
  switch (kind) {
    case VmEventKind::kStarted:
      return "started";
    case VmEventKind::kStopped:
      return "stopped";
    case VmEventKind::kPaused:
      return "paused";
    case VmEventKind::kPausedForMigration:
      return "paused_for_migration";
    case VmEventKind::kPostcopy:
      return "postcopy";
    case VmEventKind::kResumed:
      return "resumed";
  }
  return "?";
}

Result<void> print_vms(Hypervisor& host) {
  Json list = Json::array();
  for (const VmInfo& vm : TRY(host.vms())) {
    list.push_back({{"uuid", vm.id.uuid},
                    {"name", vm.name},
                    {"state", name_of(vm.state)},
                    {"memory_bytes", vm.memory_bytes},
                    {"vcpus", vm.vcpus},
                    {"cpu_seconds", vm.cpu_seconds},
                    {"pid", vm.pid},
                    {"sharing_domain", vm.sharing_domain}});
  }
  print({{"vms", list}});
  return {};
}

Result<void> print_progress(Hypervisor& host, const VmId& vm) {
  const auto progress = TRY(host.migration_progress(vm));
  print({{"bytes_processed", progress.bytes_processed},
         {"bytes_remaining", progress.bytes_remaining},
         {"elapsed_ms", progress.elapsed.count()},
         {"downtime_ms", progress.downtime.count()}});
  return {};
}

Result<void> observe(Hypervisor& host) {
  return host.observe([](const VmEvent& event) {
    print({{"event", name_of(event.kind)}, {"uuid", event.vm.uuid}});
  });
}

void print_outcome(const Result<void>& done) {
  if (done) return print({{"done", true}});
  print({{"done", false},
         {"code", static_cast<int>(done.error().code())},
         {"message", done.error().message()}});
}

Result<void> watch(Hypervisor& host) {
  const auto observed = observe(host);
  if (!observed) print_outcome(observed);
  for (std::string line; std::getline(std::cin, line);) {
    const auto printed = print_vms(host);
    if (!printed) print_outcome(printed);
  }
  return {};
}

Result<void> migrate(Hypervisor& host, const std::vector<std::string>& words) {
  TRY(observe(host));
  MigrateRequest request;
  request.vm = {words.at(1)};
  request.migrate_socket = words.at(2);
  request.control_socket = words.at(3);
  return host.migrate(request);
}

Result<void> carry_out(Hypervisor& host, const std::vector<std::string>& words) {
  const std::string& command = words.at(0);
  if (command == "vms") return print_vms(host);
  if (command == "watch") return watch(host);
  if (command == "migrate") return migrate(host, words);
  const VmId vm{words.at(1)};
  if (command == "progress") return print_progress(host, vm);
  if (command == "resume") return host.resume(vm);
  if (command == "discard") return host.discard_paused(vm);
  if (command == "cancel") return host.cancel_migration(vm);
  return fail(Errc::kInvalid, "no such command: " + command);
}

}  // namespace
}  // namespace samepage

int main(int argc, char** argv) try {
  const auto host = samepage::LibvirtHypervisor::create({});
  if (!host) return 1;
  const auto done = samepage::carry_out(**host, {argv + 1, argv + argc});
  samepage::print_outcome(done);
  return done ? 0 : 1;
} catch (const std::exception& error) {
  std::cerr << "hypervisor_probe: " << error.what() << "\n";
  return 2;
}
