// The promise under test: each message comes back as it was sent, and what no relay sends is
// kCorrupt.

#include "migrator/relay_messages.h"

#include <functional>

#include <gtest/gtest.h>

#include "core/byte_writer.h"
#include "migrator/batch.h"

namespace samepage::migrator {
namespace {

using Bytes = std::vector<std::byte>;

TEST(RelayMessagesTest, ComeBackAsTheyWereSent) {
  const MissingPages missing =
      decode_missing(encode_missing({.sequence = 3, .refs = {0, 5, 255}})).value();
  const StreamEnd sent{.sequence = 8, .stream_bytes = 99, .mac = {.bytes = {std::byte{1}}}};
  const StreamEnd end = decode_end(encode_end(sent)).value();
  BytePacker packer;
  ByteUnpacker unpacker;
  const Bytes pages(3 * kPageSize, std::byte{4});
  const ResentPages resent =
      decode_resend(encode_resend({.sequence = 6, .refs = {1, 7, 9}, .pages = pages}, packer),
                    unpacker)
          .value();
  const BasePages base =
      decode_base(encode_base({.checks = {7, 0, 65535}}, packer), unpacker).value();
  const DoubtedBatch doubt =
      decode_doubt(encode_doubt({.sequence = 4, .digests = {{}, {std::byte{9}}}})).value();

  EXPECT_EQ(decode_hello(encode_hello({.history_bytes = 77})).value().history_bytes, 77U);
  EXPECT_EQ(base.checks, (std::vector<pagecache::PageCheck>{7, 0, 65535}));
  EXPECT_EQ(doubt.sequence, 4U);
  EXPECT_EQ(doubt.digests, (std::vector<ShortDigest>{{}, {std::byte{9}}}));
  EXPECT_EQ(resent.refs, (std::vector<std::uint32_t>{1, 7, 9}));
  EXPECT_EQ(missing.sequence, 3U);
  EXPECT_EQ(missing.refs, (std::vector<std::uint32_t>{0, 5, 255}));
  EXPECT_EQ(end.sequence, 8U);
  EXPECT_EQ(end.stream_bytes, 99U);
  EXPECT_EQ(end.mac, sent.mac);
  EXPECT_EQ(resent.sequence, 6U);
  EXPECT_EQ(resent.pages, pages);
  const Ack ack = decode_ack(encode_ack({.sequence = 5, .template_pages = 6})).value();
  EXPECT_EQ(ack.sequence, 5U);
  EXPECT_EQ(ack.template_pages, 6U);
  EXPECT_EQ(decode_arrived(encode_arrived(7)), 7U);
}

TEST(RelayMessagesTest, RefuseEveryTruncationAndEveryTail) {
  BytePacker packer;
  const std::vector<std::pair<Bytes, std::function<bool(const Bytes&)>>> messages{
      {encode_hello({}), [](const Bytes& body) { return decode_hello(body).has_value(); }},
      {encode_doubt({.sequence = 1, .digests = {{}}}),
       [](const Bytes& body) { return decode_doubt(body).has_value(); }},
      {encode_base({.checks = {1, 2}}, packer),
       [](const Bytes& body) {
         ByteUnpacker unpacker;
         return decode_base(body, unpacker).has_value();
       }},
      {encode_missing({.sequence = 1, .refs = {2}}),
       [](const Bytes& body) { return decode_missing(body).has_value(); }},
      {encode_resend({.sequence = 1, .refs = {0}, .pages = Bytes(kPageSize)}, packer),
       [](const Bytes& body) {
         ByteUnpacker unpacker;
         return decode_resend(body, unpacker).has_value();
       }},
      {encode_arrived(1), [](const Bytes& body) { return decode_arrived(body).has_value(); }},
      {encode_ack({.sequence = 1}), [](const Bytes& body) { return decode_ack(body).has_value(); }},
      {encode_end({}), [](const Bytes& body) { return decode_end(body).has_value(); }},
  };
  for (const auto& [body, decodes] : messages) {
    EXPECT_TRUE(decodes(body));
    Bytes longer = body;
    longer.push_back(std::byte{0});
    EXPECT_FALSE(decodes(longer));
    for (Bytes shorter = body; !shorter.empty();) {
      shorter.pop_back();
      EXPECT_FALSE(decodes(shorter));
    }
  }
}

TEST(RelayMessagesTest, HelloOfAnotherVersionIsInvalid) {
  Bytes hello = encode_hello({});
  hello[8] = std::byte{1};
  EXPECT_EQ(decode_hello(hello).error().code(), Errc::kInvalid);
}

TEST(RelayMessagesTest, HelloOfSomethingElseIsCorrupt) {
  Bytes hello = encode_hello({});
  hello[0] = std::byte{'H'};
  EXPECT_EQ(decode_hello(hello).error().code(), Errc::kCorrupt);
}

TEST(RelayMessagesTest, MissingPagesAreAscendingAndInABatch) {
  const auto missing = [](const std::vector<std::uint32_t>& refs) {
    return decode_missing(encode_missing({.sequence = 0, .refs = refs}));
  };
  EXPECT_EQ(missing({}).error().code(), Errc::kCorrupt);
  EXPECT_EQ(missing({4, 4}).error().code(), Errc::kCorrupt);
  EXPECT_EQ(missing({5, 4}).error().code(), Errc::kCorrupt);
  EXPECT_EQ(missing({kBatchRefsMax}).error().code(), Errc::kCorrupt);
}

TEST(RelayMessagesTest, TheEndsMacDependsOnEachOfItsNumbers) {
  const DigestKey key{{std::byte{3}}};
  const StreamEnd end{.sequence = 8, .stream_bytes = 99, .mac = {}};
  const PageDigest mac = end_mac(key, end);

  EXPECT_EQ(mac, end_mac(key, end));
  EXPECT_NE(mac, end_mac(key, {.sequence = 9, .stream_bytes = 99, .mac = {}}));
  EXPECT_NE(mac, end_mac(key, {.sequence = 8, .stream_bytes = 98, .mac = {}}));
  EXPECT_NE(mac, end_mac({{std::byte{4}}}, end));
}

TEST(RelayMessagesTest, ResentPagesAreWhole) {
  BytePacker packer;
  ByteUnpacker unpacker;
  for (const std::size_t size : {kPageSize, 2 * kPageSize - 1, 2 * kPageSize + 1}) {
    ByteWriter body;
    body.u64(0);
    for (const std::uint64_t number : {2U, 0U, 1U}) body.varint(number);
    packer.pack(Bytes(size), 1, body);
    EXPECT_EQ(decode_resend(body.view(), unpacker).error().code(), Errc::kCorrupt) << size;
  }
}

}  // namespace
}  // namespace samepage::migrator
