// The promise under test: of all that passes on a libvirt connection, only the successful answer to
// a Finish that was not told to cancel counts, wherever the bytes are cut.

#include "migrator/libvirt_rpc.h"

#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "tests/migrator/rpc_message.h"

namespace samepage::migrator {
namespace {

using Bytes = std::vector<std::byte>;

constexpr RpcHeader kFinishCall{
    .program = 0x20008086, .version = 1, .procedure = 306, .type = 0, .serial = 9, .status = 0};

RpcHeader reply_to(RpcHeader call, std::uint32_t status = 0) {
  call.type = 1;
  call.status = status;
  return call;
}

Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

const Bytes kOtherTraffic =
    rpc_message({.program = 0x20008086, .version = 1, .procedure = 305, .serial = 3}, "perform") +
    rpc_message({.program = 0x6b656570, .version = 1, .procedure = 1, .type = 2}, "");

/// The first offset that the watch reports, over all of `bytes`, fed in pieces of `step`.
std::optional<std::size_t> feed(FinishWatch& watch, const Bytes& bytes, std::size_t step) {
  std::optional<std::size_t> found;
  for (std::size_t at = 0; at < bytes.size(); at += step) {
    const auto piece = std::span(bytes).subspan(at, std::min(step, bytes.size() - at));
    const auto end = watch.saw_from_target(piece);
    if (end && !found) found = at + *end;
  }
  return found;
}

TEST(LibvirtRpcTest, FindsTheAnswerWhereverItIsCut) {
  const Bytes answer = rpc_message(reply_to(kFinishCall), "the domain");
  const Bytes replies = kOtherTraffic + answer + kOtherTraffic;
  const Bytes calls = kOtherTraffic + rpc_message(kFinishCall, "params");
  for (std::size_t step = 1; step <= replies.size(); ++step) {
    FinishWatch watch;
    for (std::size_t at = 0; at < calls.size(); at += step) {
      watch.saw_from_source(std::span(calls).subspan(at, std::min(step, calls.size() - at)));
    }
    EXPECT_EQ(feed(watch, replies, step), kOtherTraffic.size() + answer.size()) << step;
    EXPECT_FALSE(watch.lost());
  }
}

TEST(LibvirtRpcTest, TheAnswerCutAtAnyByteIsNoAnswer) {
  const Bytes answer = rpc_message(reply_to(kFinishCall), "the domain");
  for (std::size_t size = 0; size < answer.size(); ++size) {
    FinishWatch watch;
    watch.saw_from_source(rpc_message(kFinishCall, "params"));
    EXPECT_FALSE(watch.saw_from_target(std::span(answer).first(size))) << size;
  }
}

TEST(LibvirtRpcTest, TheOlderFinishCounts) {
  RpcHeader call = kFinishCall;
  call.procedure = 217;
  FinishWatch watch;
  watch.saw_from_source(rpc_message(call, "dname"));
  EXPECT_TRUE(watch.saw_from_target(rpc_message(reply_to(call), "")));
}

TEST(LibvirtRpcTest, AFailedFinishDoesNotCount) {
  FinishWatch watch;
  watch.saw_from_source(rpc_message(kFinishCall, "params"));
  EXPECT_FALSE(watch.saw_from_target(rpc_message(reply_to(kFinishCall, 1), "error")));
  // Nor does whatever may come after it under the same number.
  EXPECT_FALSE(watch.saw_from_target(rpc_message(reply_to(kFinishCall), "")));
}

TEST(LibvirtRpcTest, ACancellingFinishDoesNotCount) {
  FinishWatch watch;
  watch.saw_from_source(rpc_message(kFinishCall, "params", 1));
  EXPECT_FALSE(watch.saw_from_target(rpc_message(reply_to(kFinishCall), "")));
}

TEST(LibvirtRpcTest, AnAnswerThatNobodyAskedForDoesNotCount) {
  FinishWatch watch;
  EXPECT_FALSE(watch.saw_from_target(rpc_message(reply_to(kFinishCall), "")));
  watch.saw_from_source(rpc_message(kFinishCall, "params"));
  RpcHeader other = reply_to(kFinishCall);
  ++other.serial;
  EXPECT_FALSE(watch.saw_from_target(rpc_message(other, "")));
  RpcHeader other_program = reply_to(kFinishCall);
  other_program.program = 0x20008087;
  EXPECT_FALSE(watch.saw_from_target(rpc_message(other_program, "")));
  EXPECT_TRUE(watch.saw_from_target(rpc_message(reply_to(kFinishCall), "")));
}

TEST(LibvirtRpcTest, TheLongestMessagePassesAndALongerOneIsLost) {
  RpcFramer framer;
  Bytes head = rpc_message({.program = 0x20008086, .version = 1, .procedure = 5}, "");
  const std::uint32_t longest = (32U << 20U) + 4;
  put_be32(head, 0, longest);
  ASSERT_TRUE(framer.feed(head).empty());
  const Bytes rest(longest - head.size());
  ASSERT_EQ(framer.feed(rest).size(), 1U);
  EXPECT_FALSE(framer.lost());

  put_be32(head, 0, longest + 1);
  EXPECT_TRUE(framer.feed(head).empty());
  EXPECT_TRUE(framer.lost());
}

TEST(LibvirtRpcTest, SomethingElseIsLostAndNeverAnAnswer) {
  std::mt19937 random(7);
  SCOPED_TRACE("seed 7");
  for (int round = 0; round < 1000; ++round) {
    FinishWatch watch;
    watch.saw_from_source(rpc_message(kFinishCall, "params"));
    Bytes noise(random() % 300);
    for (std::byte& byte : noise) byte = static_cast<std::byte>(random());
    EXPECT_FALSE(feed(watch, noise, 1 + random() % 40));
  }
}

TEST(LibvirtRpcTest, ATooShortMessageIsLost) {
  FinishWatch watch;
  Bytes message = rpc_message(kFinishCall, "params");
  put_be32(message, 0, 27);
  watch.saw_from_source(message);
  EXPECT_TRUE(watch.lost());
}

}  // namespace
}  // namespace samepage::migrator
