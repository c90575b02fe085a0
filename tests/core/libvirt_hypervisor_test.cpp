// The promise under test: what libvirt says of a host's VMs arrives unchanged, a missing libvirtd
// is "unavailable" and not an error for good, and nobody else's VM is ended or put into a tenant's
// domain by mistake. Against libvirt's own test driver, whose host lives in this process; live
// migration between two hosts is tests/system/hypervisor_test.py.

#include "core/libvirt_hypervisor.h"

#include <array>
#include <fstream>

#include <gtest/gtest.h>
#include <libvirt/libvirt.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/fd.h"
#include "core/handle.h"
#include "tests/core/mailbox.h"
#include "tests/core/temporary_folder.h"

namespace samepage {
namespace {

const VmId kTestVm{"6695eb01-f6a4-8304-79aa-97f2502e193f"};
const VmId kNobody{"00000000-0000-4000-8000-000000000000"};
constexpr const char* kNamespace = "https://samepage.example/vm/1";

class LibvirtHypervisorTest : public ::testing::Test {
 protected:
  std::unique_ptr<Hypervisor> hypervisor() {
    auto created =
        LibvirtHypervisor::create({.uri = "test:///default", .pid_folder = folder_.file("")});
    EXPECT_TRUE(created) << created.error().message();
    return *std::move(created);
  }

  void TearDown() override {
    set_metadata(nullptr);
    virDomainResume(domain_.get());
  }

  void set_metadata(const char* element) {
    virDomainSetMetadata(domain_.get(), VIR_DOMAIN_METADATA_ELEMENT, element,
                         element == nullptr ? nullptr : "samepage", kNamespace,
                         VIR_DOMAIN_AFFECT_LIVE);
  }

  TemporaryFolder folder_;
  Handle<virConnect, virConnectClose> connect_{virConnectOpen("test:///default")};
  Handle<virDomain, virDomainFree> domain_{
      virDomainLookupByUUIDString(connect_.get(), kTestVm.uuid.c_str())};
};

/// A process that has the VM's UUID among its arguments, as a QEMU of libvirt's has.
class ProcessNamedLike {
 public:
  explicit ProcessNamedLike(const std::string& uuid) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    line_ = Fd(ends[0]);
    const Fd child_end(ends[1]);
    posix_spawn_file_actions_t actions{};
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, child_end.get(), STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, child_end.get(), STDOUT_FILENO);
    std::string name = "sh";
    std::string flag = "-c";
    std::string script = "echo; read line";
    std::string argument = uuid;
    const std::array<char*, 5> arguments = {name.data(), flag.data(), script.data(),
                                            argument.data(), nullptr};
    EXPECT_EQ(posix_spawn(&pid_, "/bin/sh", &actions, nullptr, arguments.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    // The kernel shows the arguments only some time after posix_spawn() has returned.
    char started = 0;
    EXPECT_EQ(::read(line_.get(), &started, 1), 1);
  }
  ProcessNamedLike(const ProcessNamedLike&) = delete;
  ProcessNamedLike& operator=(const ProcessNamedLike&) = delete;
  ~ProcessNamedLike() {
    line_.reset();
    ::waitpid(pid_, nullptr, 0);
  }

  pid_t pid() const { return pid_; }

 private:
  Fd line_;
  pid_t pid_ = 0;
};

TEST_F(LibvirtHypervisorTest, DescribesTheHost) {
  const auto facts = hypervisor()->facts();

  ASSERT_TRUE(facts) << facts.error().message();
  EXPECT_EQ(facts->uri, "test:///default");
  EXPECT_EQ(facts->hypervisor_version, "TEST 0.0.2");
  EXPECT_TRUE(facts->library_version.starts_with("libvirt "));
  EXPECT_EQ(facts->memory_bytes, std::uint64_t{3} << 30U);
  EXPECT_EQ(facts->cpus, 16);
}

TEST_F(LibvirtHypervisorTest, DescribesEveryActiveVm) {
  const auto vms = hypervisor()->vms();

  ASSERT_TRUE(vms) << vms.error().message();
  ASSERT_EQ(vms->size(), 1U);
  const VmInfo& vm = vms->front();
  EXPECT_EQ(vm.id, kTestVm);
  EXPECT_EQ(vm.name, "test");
  EXPECT_EQ(vm.state, VmState::kRunning);
  EXPECT_EQ(vm.memory_bytes, std::uint64_t{8} << 30U);
  EXPECT_EQ(vm.vcpus, 2);
  EXPECT_EQ(vm.sharing_domain, "default");
  EXPECT_EQ(vm.pid, 0);
}

TEST_F(LibvirtHypervisorTest, ReadsTheSharingDomain) {
  const auto host = hypervisor();
  set_metadata("<domain>tenant-7</domain>");
  EXPECT_EQ(host->vms()->front().sharing_domain, "tenant-7");

  set_metadata("<domain>no name</domain>");
  EXPECT_EQ(host->vms()->front().sharing_domain, "");
}

TEST_F(LibvirtHypervisorTest, TakesAPidOnlyFromTheVmsOwnProcess) {
  const ProcessNamedLike qemu(kTestVm.uuid);
  std::ofstream(folder_.file("test.pid")) << qemu.pid() << "\n";
  EXPECT_EQ(hypervisor()->vms()->front().pid, qemu.pid());

  const ProcessNamedLike stranger(kNobody.uuid);
  std::ofstream(folder_.file("test.pid")) << stranger.pid() << "\n";
  EXPECT_EQ(hypervisor()->vms()->front().pid, 0);

  std::ofstream(folder_.file("test.pid")) << "-1\n";
  EXPECT_EQ(hypervisor()->vms()->front().pid, 0);
}

TEST_F(LibvirtHypervisorTest, ReportsPausesAndResumptions) {
  const auto host = hypervisor();
  Mailbox<VmEvent> events;
  ASSERT_TRUE(host->observe([&](const VmEvent& event) { events.put(event); }));

  ASSERT_EQ(virDomainSuspend(domain_.get()), 0);
  EXPECT_EQ(host->vms()->front().state, VmState::kPaused);
  ASSERT_TRUE(host->resume(kTestVm));
  EXPECT_EQ(host->vms()->front().state, VmState::kRunning);

  const auto paused = events.take();
  ASSERT_TRUE(paused);
  EXPECT_EQ(paused->vm, kTestVm);
  EXPECT_EQ(paused->kind, VmEventKind::kPaused);
  EXPECT_EQ(events.take()->kind, VmEventKind::kResumed);
}

TEST_F(LibvirtHypervisorTest, AnObserverMayCallBackAndIsSilentAfterwards) {
  auto host = hypervisor();
  Mailbox<std::size_t> counts;
  ASSERT_TRUE(host->observe([&](const VmEvent&) { counts.put(host->vms()->size()); }));
  ASSERT_EQ(virDomainSuspend(domain_.get()), 0);
  EXPECT_EQ(counts.take(), 1U);

  host.reset();

  ASSERT_EQ(virDomainResume(domain_.get()), 0);
  EXPECT_TRUE(counts.is_empty());
}

TEST_F(LibvirtHypervisorTest, ALaterObserverReplacesTheEarlier) {
  const auto host = hypervisor();
  Mailbox<VmEventKind> first;
  Mailbox<VmEventKind> second;
  ASSERT_TRUE(host->observe([&](const VmEvent& event) { first.put(event.kind); }));
  ASSERT_TRUE(host->observe([&](const VmEvent& event) { second.put(event.kind); }));

  ASSERT_EQ(virDomainSuspend(domain_.get()), 0);

  EXPECT_EQ(second.take(), VmEventKind::kPaused);
  EXPECT_TRUE(first.is_empty());
}

TEST_F(LibvirtHypervisorTest, DoesNotDiscardARunningVm) {
  const auto host = hypervisor();

  EXPECT_EQ(host->discard_paused(kTestVm).error().code(), Errc::kInvalid);

  EXPECT_EQ(host->vms()->size(), 1U);
}

TEST_F(LibvirtHypervisorTest, DiscardsAPausedCopy) {
  constexpr const char* kXml =
      "<domain type='test'><name>copy</name><uuid>1f0c3c4e-5b7e-4b21-9f3b-6b1d0c0a0002</uuid>"
      "<memory>1024</memory><os><type>hvm</type></os></domain>";
  const VmId copy{"1f0c3c4e-5b7e-4b21-9f3b-6b1d0c0a0002"};
  const auto host = hypervisor();
  const Handle<virDomain, virDomainFree> defined(virDomainDefineXML(connect_.get(), kXml));
  ASSERT_TRUE(defined);
  ASSERT_EQ(virDomainCreate(defined.get()), 0);
  ASSERT_EQ(virDomainSuspend(defined.get()), 0);
  ASSERT_EQ(host->vms()->size(), 2U);

  ASSERT_TRUE(host->discard_paused(copy));

  EXPECT_EQ(host->vms()->size(), 1U);
  EXPECT_EQ(host->discard_paused(copy).error().code(), Errc::kNotFound);
}

TEST_F(LibvirtHypervisorTest, SaysNotFoundForAVmThatIsElsewhere) {
  const auto host = hypervisor();
  MigrateRequest request;
  request.vm = kNobody;

  EXPECT_EQ(host->resume(kNobody).error().code(), Errc::kNotFound);
  EXPECT_EQ(host->migrate(request).error().code(), Errc::kNotFound);
  EXPECT_EQ(host->migration_progress(kNobody).error().code(), Errc::kNotFound);
  EXPECT_EQ(host->cancel_migration(kNobody).error().code(), Errc::kNotFound);
  EXPECT_EQ(host->discard_paused(kNobody).error().code(), Errc::kNotFound);
}

TEST_F(LibvirtHypervisorTest, AFailedMigrationLeavesTheVmWhereItIs) {
  const auto host = hypervisor();
  MigrateRequest request;
  request.vm = kTestVm;
  request.migrate_socket = folder_.file("migrate.sock");
  request.control_socket = folder_.file("control.sock");

  // The test driver cannot migrate.
  EXPECT_EQ(host->migrate(request).error().code(), Errc::kInvalid);

  EXPECT_EQ(host->vms()->front().state, VmState::kRunning);
}

TEST_F(LibvirtHypervisorTest, SaysUnavailableWhileLibvirtdIsAway) {
  const auto host =
      LibvirtHypervisor::create({.uri = "qemu+unix:///system?socket=" + folder_.file("no.sock")})
          .value();

  const auto refused = host->vms();

  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Errc::kUnavailable);
  EXPECT_NE(refused.error().message().find("no.sock"), std::string::npos)
      << refused.error().message();
  EXPECT_EQ(host->facts().error().code(), Errc::kUnavailable);
  EXPECT_EQ(host->observe([](const VmEvent&) {}).error().code(), Errc::kUnavailable);
}

}  // namespace
}  // namespace samepage
