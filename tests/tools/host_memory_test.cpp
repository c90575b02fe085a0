// The promise under test: what a report says of memory is of one count, and counting takes no more
// of the time than it may, but for guests that came.

#include "tools/samepaged/host_memory.h"

#include <string>
#include <utility>

#include <gtest/gtest.h>
#include <unistd.h>

#include "fingerprinter/ksm_accounting.h"
#include "tests/fingerprinter/held_memory.h"

namespace samepage::agent {
namespace {

using fingerprinter::HeldMemory;
using fingerprinter::Holding;

constexpr std::uint64_t kPages = 3'001;

/// Half a second goes by whenever somebody looks, so that everything takes time.
class SlowClock final : public Clock {
 public:
  std::chrono::steady_clock::time_point now() const override {
    passed_ += std::chrono::milliseconds(500);
    return std::chrono::steady_clock::time_point(passed_);
  }
  std::chrono::system_clock::time_point today() const override { return {}; }

  void advance(std::chrono::milliseconds by) { passed_ += by; }

 private:
  mutable std::chrono::milliseconds passed_{0};
};

VmInfo named(VmInfo vm, std::string uuid) {
  vm.id = {std::move(uuid)};
  return vm;
}

HeldMemory::Action write(std::uint64_t pages) {
  return [pages](std::byte* ram) {
    for (std::uint64_t i = 0; i < pages; ++i) fingerprinter::write_page(ram, i, i + 1);
  };
}

class HostMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fingerprinter::count_frames({})) GTEST_SKIP() << "needs CAP_SYS_ADMIN";
  }

  bus::HostReport report(const std::vector<VmInfo>& vms, bool must = false) {
    memory_.renew(vms, must);
    bus::HostReport report;
    for (const VmInfo& vm : vms) report.add_vms()->set_uuid(vm.id.uuid);
    memory_.put(report);
    return report;
  }

  SlowClock clock_;
  HostMemory memory_{{.time_share = 0.05, .observes_ksm = true}, clock_};
};

TEST_F(HostMemoryTest, SaysToWhomAGuestsPagesBelong) {
  const HeldMemory fork(Holding::kPrivateFile, kPages, write(10));
  const std::string data(30 * kPageSize, 'x');
  ASSERT_EQ(::pwrite(fork.file().get(), data.data(), data.size(), 0),
            static_cast<ssize_t>(data.size()));
  const HeldMemory plain(Holding::kPrivate, kPages, write(20));

  const auto made = report({named(fork.vm(), "fork"), named(plain.vm(), "plain")});

  EXPECT_EQ(made.vms(0).memory().own_pages(), 10U);
  EXPECT_EQ(made.vms(0).memory().template_pages(), 20U);
  EXPECT_EQ(made.vms(1).memory().own_pages(), 20U);
  EXPECT_EQ(made.vms(1).memory().template_pages(), 0U);
  EXPECT_EQ(made.memory().resident_pages(), 30U);
  EXPECT_GT(made.memory().counted_ms(), 0U);
  EXPECT_GT(made.memory().free_bytes(), 0U);
}

TEST_F(HostMemoryTest, CountsASmallPartOfTheTime) {
  HeldMemory guest(Holding::kPrivate, kPages, write(10), write(50));
  const std::vector vms = {named(guest.vm(), "guest")};
  const auto first = report(vms);
  guest.act();

  clock_.advance(std::chrono::seconds(10));
  const auto repeated = report(vms);
  EXPECT_EQ(repeated.vms(0).memory().own_pages(), 10U);
  EXPECT_EQ(repeated.memory().counted_ms(), first.memory().counted_ms());

  EXPECT_EQ(report(vms, true).vms(0).memory().own_pages(), 50U);

  clock_.advance(std::chrono::seconds(22));  // It had taken a second, a twentieth of this.
  const auto renewed = report(vms);
  EXPECT_GT(renewed.memory().counted_ms(), first.memory().counted_ms());
}

TEST_F(HostMemoryTest, CountsAtOnceWhenAGuestHasComeOrLeft) {
  HeldMemory guest(Holding::kPrivate, kPages, write(10), write(50));
  const HeldMemory other(Holding::kPrivate, kPages, write(7));
  report({named(guest.vm(), "guest")});
  guest.act();

  const auto both = report({named(guest.vm(), "guest"), named(other.vm(), "other")});
  const auto one = report({named(other.vm(), "other")});
  const auto third = report({named(guest.vm(), "guest")});

  EXPECT_EQ(both.vms(0).memory().own_pages(), 50U);
  EXPECT_EQ(both.memory().resident_pages(), 57U);
  EXPECT_EQ(one.memory().resident_pages(), 7U);
  EXPECT_EQ(third.memory().resident_pages(), 50U);
}

TEST_F(HostMemoryTest, AGuestThatEndedMeanwhileHasNoMemory) {
  HeldMemory gone(Holding::kPrivate, kPages, write(10));
  const std::vector vms = {named(gone.vm(), "gone")};
  gone.end();

  const auto made = report(vms);

  EXPECT_FALSE(made.vms(0).has_memory());
  EXPECT_GT(made.memory().counted_ms(), 0U);
}

}  // namespace
}  // namespace samepage::agent
