// The promise under test: a guest gets a ticket to its own template and to no other, and a sieve
// only when its QEMU maps the template.
#include "migrator/template_arrival.h"

#include <fstream>

#include <gtest/gtest.h>

#include "tests/core/temporary_folder.h"
#include "tests/fakes/fake_hypervisor.h"

namespace samepage::migrator {
namespace {

namespace fs = std::filesystem;

constexpr const char* kUuid = "11111111-2222-4333-8444-555555555555";
constexpr std::uint64_t kBytes = 1 << 20U;

class TemplateArrivalTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(root_);
    shelf_ = TemplateShelf::open({.folder = root_ / "samepage"}).value();
    TemplateState state;
    state.name = "small";
    state.id = std::string(32, 'a');
    state.memory_bytes = kBytes;
    state.ram_block = "pc.ram";
    state.leader.xml = "<domain><name>leader</name></domain>";
    const fs::path folder = shelf_->begin(state.id).value();
    std::ofstream(folder / "pc.ram");
    fs::resize_file(folder / "pc.ram", kBytes);
    ASSERT_TRUE(shelf_->keep(state));
  }

  static TemplateArrival::Guest guest() {
    return {.vm = {kUuid},
            .template_id = std::string(32, 'a'),
            .sharing_domain = "default",
            .memory_bytes = kBytes};
  }
  Errc refusal(const TemplateArrival::Guest& guest) {
    return TemplateArrival::expect(*shelf_, guest).error().code();
  }
  fs::path ticket() const { return root_ / "samepage" / "forks" / kUuid / "pc.ram"; }

  TemporaryFolder folder_;
  const fs::path root_ = folder_.file("ram");
  std::unique_ptr<TemplateShelf> shelf_;
  fakes::FakeHypervisor hypervisor_;
};

TEST_F(TemplateArrivalTest, LaysATicketAndTakesItBack) {
  auto arrival = TemplateArrival::expect(*shelf_, guest()).value();
  EXPECT_TRUE(fs::exists(ticket()));
  arrival.reset();
  EXPECT_FALSE(fs::exists(ticket()));
}

TEST_F(TemplateArrivalTest, RefusesWhatIsNotTheGuests) {
  auto other = guest();
  other.template_id = std::string(32, 'b');
  EXPECT_EQ(refusal(other), Errc::kNotFound);
  other = guest();
  other.memory_bytes = 2 * kBytes;
  EXPECT_EQ(refusal(other), Errc::kInvalid);
  other.memory_bytes = kBytes / 2;
  EXPECT_EQ(refusal(other), Errc::kInvalid);
  other = guest();
  other.sharing_domain = "tenant";
  EXPECT_EQ(refusal(other), Errc::kInvalid);
  other = guest();
  other.vm.uuid = "../../etc";
  EXPECT_EQ(refusal(other), Errc::kInvalid);
  EXPECT_FALSE(fs::exists(ticket()));
}

TEST_F(TemplateArrivalTest, WithoutTheHookThereIsNoSieve) {
  const auto arrival = TemplateArrival::expect(*shelf_, guest()).value();

  const auto sieve = arrival->sieve(hypervisor_);

  EXPECT_EQ(sieve.error().code(), Errc::kInvalid);
  EXPECT_FALSE(fs::exists(ticket()));
}

TEST_F(TemplateArrivalTest, AGuestThatMapsAnotherFileHasNoSieve) {
  const auto arrival = TemplateArrival::expect(*shelf_, guest()).value();
  fs::remove_all(ticket().parent_path());
  EXPECT_EQ(arrival->sieve(hypervisor_).error().code(), Errc::kNotFound);

  hypervisor_.add({.id = {kUuid}, .name = "web", .memory_bytes = kBytes, .pid = ::getpid()});
  EXPECT_FALSE(arrival->sieve(hypervisor_));
}

}  // namespace
}  // namespace samepage::migrator
