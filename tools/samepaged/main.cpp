// samepaged: the agent on a virtualization host. docs/man/samepaged.8 is its reference.

#include <cstdio>

#include <CLI/CLI.hpp>

#include "core/clock.h"
#include "core/curve_keys.h"
#include "core/libvirt_hypervisor.h"
#include "core/libvirt_vm_control.h"
#include "core/program.h"
#include "tools/samepaged/agent.h"
#include "tools/samepaged/options.h"

namespace samepage::agent {
namespace {

void add_flags(CLI::App& flags, Options& options) {
  flags.option_defaults()->always_capture_default();
  flags
      .add_flag("--init", options.init,
                "Make this host's key pair unless there is one, print the public key and exit")
      ->configurable(false);
  flags.add_option("--placer", options.placer, "The placer's bus, as tcp://HOST:PORT");
  flags.add_option("--key", options.key_file, "This host's key pair");
  flags.add_option("--placer-key", options.placer_key_file, "The placer's public key");
  flags.add_option("--data-address", options.data_address,
                   "The IP address at which other hosts' agents reach this one");
  flags.add_option("--memory-mib", options.memory_mib,
                   "The memory offered to guests, in MiB; 0 takes all of it");
  flags.add_option("--link-mbit", options.link_mbit,
                   "The speed of the guests' network, in Mbit/s; 0 when it does not matter");
  flags.add_option("--hardware", options.hardware,
                   "The class of this host's hardware; the processor's model when it is left out");
  flags.add_option("--pressure", options.pressure_dir,
                   "The folder of the guests' pressure files (PSI), or `none`; found when it is "
                   "left out");
  flags
      .add_option("--scan-cpu", options.scan_cpu,
                  "Of the host's CPU time, how many cores' worth scans may take")
      ->check(CLI::Range(0.01, 64.0));
  flags
      .add_option("--ksm", options.ksm,
                  "manage: set how fast the kernel merges equal pages; observe: report what it "
                  "does; off: neither")
      ->check(CLI::IsMember({"manage", "observe", "off"}));
  flags
      .add_option("--ksm-cpu", options.ksm_cpu,
                  "Of one core, what the kernel's merging may take when it is managed")
      ->check(CLI::Range(0.01, 0.9));
  flags.add_option("--libvirt", options.libvirt_uri, "The hypervisor's URI");
  flags.add_option("--libvirt-socket", options.libvirt_socket, "libvirt's UNIX socket");
  flags.add_option(
      "--store-dir", options.store_dir,
      "The image store: holds templates, and pages that arriving guests need not bring");
  flags.add_option("--checkpoint-dir", options.checkpoint_dir,
                   "Where pages of guests that left are kept, encrypted");
  flags.add_option("--checkpoint-mib", options.checkpoint_mib,
                   "How much of them is kept, in MiB; 0 keeps nothing");
  flags.add_option("--run-dir", options.run_dir,
                   "Where the sockets of migrations and disks live; the same on all hosts");
  flags.add_option("--store-mib", options.store_mib,
                   "The memory lent to the fleet's image store, in MiB; 0 lends none");
  flags.add_flag("--store-huge-pages", options.store_huge_pages,
                 "Lend huge pages of 2 MiB, when vm.nr_hugepages leaves enough of them free: disks "
                 "of this host then read at twice the rate");
  flags.add_option(
      "--store-socket", options.store_socket,
      "Where this host's disks reach the store; store.sock in the run folder when empty");
  flags.add_option("--store-provider", options.store_provider,
                   "libfabric's provider between hosts; verbs;ofi_rxm where there is RDMA");
  flags.add_option("--disks-dir", options.disks_dir, "Where what VMs write to their disks is kept");
  flags.add_option("--mirrors-dir", options.mirrors_dir,
                   "Where what this host has read of images is kept");
  flags.add_option("--mirrors-mib", options.mirrors_mib,
                   "How much of images that no disk stands on is kept, in MiB");
  flags.add_option("--nbdkit-plugin", options.nbdkit_plugin,
                   "The nbdkit plugin that serves disks; empty takes the one beside this program, "
                   "or nbdkit's own");
  flags.add_option("--store-origin", options.store_origin,
                   "Where the image store is durable: dir: or rados:POOL");
  flags.add_option("--ceph-conf", options.ceph_conf, "The Ceph cluster's configuration");
  flags.add_option("--qemu-conf", options.qemu_conf,
                   "libvirt's qemu.conf, whose memory_backing_dir holds templates' RAM files");
  flags.add_option("--template-mib", options.template_mib,
                   "What RAM files of templates that no VM uses may take, in MiB");
  flags
      .add_option("--boots-at-once", options.boots_at_once, "VMs that are booted at the same time")
      ->check(CLI::Range(1, 64));
}

Result<void> init(const Options& options) {
  const auto keys = TRY(load_or_make_curve_keys(options.key_file));
  std::printf("%s\n", keys.public_key.c_str());
  return {};
}

Result<void> run(const Options& options, const Program& program) {
  if (options.init) return init(options);
  if (options.placer.empty()) {
    return fail(Errc::kInvalid, "--placer is missing: where is the placer, as tcp://HOST:PORT?");
  }
  if (options.data_address.empty()) {
    return fail(Errc::kInvalid,
                "--data-address is missing: at which IP address do other hosts reach this one?");
  }
  const SystemClock clock;
  const auto hypervisor = TRY(LibvirtHypervisor::create({.uri = options.libvirt_uri}));
  const auto vms = TRY(LibvirtVmControl::create(options.libvirt_uri));
  const auto agent = TRY(Agent::create(options, {*hypervisor, *vms}, clock));
  return agent->serve(program.stop_descriptor());
}

}  // namespace
}  // namespace samepage::agent

// Flags that contradict each other are a bug, and end the program by their exception.
// NOLINTNEXTLINE(bugprone-exception-escape)
int main(int argc, char** argv) {
  samepage::Program program({.name = "samepaged",
                             .about = "Samepage's agent on a virtualization host",
                             .kind = samepage::Program::Kind::kDaemon,
                             .config_file = "/etc/samepage/samepaged.toml"});
  samepage::agent::Options options;
  samepage::agent::add_flags(program.flags(), options);
  if (const auto code = program.parse(argc, argv)) return *code;
  return program.run([&] { return samepage::agent::run(options, program); });
}
