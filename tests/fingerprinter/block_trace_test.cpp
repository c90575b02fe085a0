// The promise under test: blocks are taken from QEMU's log however it is cut, and two traces are
// walked along in step, with every stretch that differs counted as one burst.

#include "fingerprinter/block_trace.h"

#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace samepage::fingerprinter {
namespace {

std::string line(std::uint64_t address) {
  return fmt::format("Trace 0: 0x7f5c2c000100 [00000000/{:016x}/00000033/ff000000] f\n", address);
}

/// Blocks 1 to 100, with these in place of `left_out` of them from place 50 on.
BlockTrace trace_of(std::size_t left_out, std::vector<std::uint64_t> put_in) {
  BlockTrace trace(1000);
  for (std::uint64_t i = 1; i <= 100; ++i) {
    if (i == 50) {
      for (const std::uint64_t block : put_in) trace.add(line(block));
    }
    if (i < 50 || i >= 50 + left_out) trace.add(line(i));
  }
  return trace;
}

TEST(BlockTraceTest, TakesBlocksFromALogThatIsCutAnywhere) {
  const std::string log =
      "IN: start\n" + line(0xffffffff81000010) + line(0xffffffff81000000) + "Trace [x/y/\n";
  for (std::size_t cut = 0; cut <= log.size(); ++cut) {
    BlockTrace trace(10);
    trace.add(std::string_view(log).substr(0, cut));
    trace.add(std::string_view(log).substr(cut));
    EXPECT_EQ(trace.blocks(), (std::vector<std::uint64_t>{0, UINT64_MAX - 15}));
  }
}

TEST(BlockTraceTest, IsFullAtItsBound) {
  BlockTrace trace(2);
  trace.add(line(1) + line(2) + line(3));
  EXPECT_TRUE(trace.is_full());
  EXPECT_EQ(trace.blocks().size(), 2U);
}

TEST(BlockTraceTest, ATraceIsInStepWithItself) {
  const BlockTrace trace = trace_of(0, {});

  const ExecutionLikeness found = compare(trace, trace);

  EXPECT_EQ(found.blocks, 200U);
  EXPECT_EQ(found.in_step, 200U);
  EXPECT_EQ(found.in_any_order, 200U);
  EXPECT_EQ(found.bursts.count, 0U);
  EXPECT_EQ(found.equal_runs.longest, 100U);
}

TEST(BlockTraceTest, AnInterruptIsOneBurst) {
  const BlockTrace plain = trace_of(0, {});
  const BlockTrace interrupted = trace_of(0, {901, 902, 903, 904, 905});

  const ExecutionLikeness found = compare(plain, interrupted);

  EXPECT_EQ(found.in_step, 200U);
  EXPECT_EQ(found.bursts.count, 1U);
  EXPECT_EQ(found.bursts.longest, 5U);
  EXPECT_EQ(found.bursts.median(), 7U);
  EXPECT_EQ(found.equal_runs.count, 2U);
}

TEST(BlockTraceTest, AnotherBranchIsABurstOfItsLongerSide) {
  const ExecutionLikeness found = compare(trace_of(3, {901}), trace_of(0, {}));

  EXPECT_EQ(found.in_step, 2 * 97U);
  EXPECT_EQ(found.bursts.count, 1U);
  EXPECT_EQ(found.bursts.longest, 3U);
}

TEST(BlockTraceTest, TracesThatNeverMeetAreOneBurst) {
  BlockTrace a(300);
  BlockTrace b(300);
  for (std::uint64_t i = 0; i < 300; ++i) {
    a.add(line(1000 + i));
    b.add(line(1000 + i * i + 7 * (i % 2)));
  }

  const ExecutionLikeness found = compare(a, b);

  EXPECT_LE(found.in_step, 6U);
  EXPECT_GE(found.bursts.longest, 280U);
}

}  // namespace
}  // namespace samepage::fingerprinter
