#include "migrator/relay_messages.h"

#include <algorithm>
#include <string>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "migrator/batch.h"

namespace samepage::migrator {
namespace {

constexpr std::uint64_t kMagic = 0x59'41'4C'45'52'50'41'53;  // "SAPRELAY"
constexpr std::uint32_t kVersion = 5;
constexpr int kRareLevel = 3;  // Messages that are few.

Result<void> at_end(const ByteReader& reader) {
  if (!reader.at_end()) return fail(Errc::kCorrupt, "bytes behind the end of a message");
  return {};
}

void write_refs(std::span<const std::uint32_t> refs, ByteWriter& body) {
  body.varint(refs.size());
  for (const std::uint32_t ref : refs) body.varint(ref);
}

Result<std::vector<std::uint32_t>> read_refs(ByteReader& reader) {
  std::vector<std::uint32_t> refs;
  const auto count = TRY(reader.varint(kBatchRefsMax));
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto ref = static_cast<std::uint32_t>(TRY(reader.varint(kBatchRefsMax - 1)));
    if (i > 0 && ref <= refs.back()) return fail(Errc::kCorrupt, "page numbers in disorder");
    refs.push_back(ref);
  }
  return refs;
}

}  // namespace

std::size_t body_bytes_max(MessageType type) {
  switch (type) {
    case MessageType::kFilter:
    case MessageType::kBase:
      return 64U << 20U;
    case MessageType::kBatch:
    case MessageType::kResend:
      return 2U << 20U;
    case MessageType::kReturnPath:
      return 64U << 10U;
    case MessageType::kDoubt:
      return 8U << 10U;
    case MessageType::kHello:
    case MessageType::kMissing:
    case MessageType::kAck:
    case MessageType::kArrived:
    case MessageType::kEnd:
      return 4U << 10U;
  }
  return 0;
}

std::vector<std::byte> encode_hello(const Hello& hello) {
  ByteWriter body;
  body.u64(kMagic);
  body.u32(kVersion);
  body.u64(hello.history_bytes);
  return body.take();
}

Result<Hello> decode_hello(std::span<const std::byte> body) {
  ByteReader reader(body);
  if (TRY(reader.u64()) != kMagic) return fail(Errc::kCorrupt, "the peer is no migration relay");
  const std::uint32_t version = TRY(reader.u32());
  if (version != kVersion) {
    return fail(Errc::kInvalid, "the peer speaks relay version " + std::to_string(version) +
                                    ", this host " + std::to_string(kVersion));
  }
  const Hello hello{.history_bytes = TRY(reader.u64())};
  TRY(at_end(reader));
  return hello;
}

std::vector<std::byte> encode_base(const BasePages& base, BytePacker& packer) {
  ByteWriter checks;
  for (const pagecache::PageCheck check : base.checks) {
    checks.u8(static_cast<std::uint8_t>(check));
    checks.u8(static_cast<std::uint8_t>(check >> 8U));
  }
  ByteWriter body;
  packer.pack(checks.view(), kRareLevel, body);
  return body.take();
}

Result<BasePages> decode_base(std::span<const std::byte> body, ByteUnpacker& unpacker) {
  ByteReader reader(body);
  const auto checks = TRY(unpacker.unpack(reader, 2 * kBasePagesMax));
  TRY(at_end(reader));
  if (checks.size() % 2 != 0) return fail(Errc::kCorrupt, "half a page's check");
  BasePages base;
  base.checks.resize(checks.size() / 2);
  for (std::size_t i = 0; i < base.checks.size(); ++i) {
    base.checks[i] =
        static_cast<pagecache::PageCheck>(std::to_integer<unsigned>(checks[2 * i]) |
                                          std::to_integer<unsigned>(checks[2 * i + 1]) << 8U);
  }
  return base;
}

std::vector<std::byte> encode_missing(const MissingPages& missing) {
  ByteWriter body;
  body.u64(missing.sequence);
  write_refs(missing.refs, body);
  return body.take();
}

Result<MissingPages> decode_missing(std::span<const std::byte> body) {
  ByteReader reader(body);
  MissingPages missing{.sequence = TRY(reader.u64()), .refs = TRY(read_refs(reader))};
  if (missing.refs.empty()) return fail(Errc::kCorrupt, "a request for no pages");
  TRY(at_end(reader));
  return missing;
}

ShortDigest shorten(const PageDigest& digest) {
  ShortDigest first;
  std::copy_n(digest.bytes.begin(), first.size(), first.begin());
  return first;
}

std::vector<std::byte> encode_doubt(const DoubtedBatch& doubt) {
  ByteWriter body;
  body.u64(doubt.sequence);
  body.varint(doubt.digests.size());
  for (const ShortDigest& digest : doubt.digests) body.raw(digest);
  return body.take();
}

Result<DoubtedBatch> decode_doubt(std::span<const std::byte> body) {
  ByteReader reader(body);
  DoubtedBatch doubt{.sequence = TRY(reader.u64()), .digests = {}};
  const auto count = TRY(reader.varint(kBatchRefsMax));
  for (std::uint64_t i = 0; i < count; ++i) {
    ShortDigest digest;
    const auto bytes = TRY(reader.raw(digest.size()));
    std::copy(bytes.begin(), bytes.end(), digest.begin());
    doubt.digests.push_back(digest);
  }
  TRY(at_end(reader));
  return doubt;
}

std::vector<std::byte> encode_resend(const ResentPages& resent, BytePacker& packer) {
  ByteWriter body;
  body.u64(resent.sequence);
  write_refs(resent.refs, body);
  packer.pack(resent.pages, kRareLevel, body);
  return body.take();
}

Result<ResentPages> decode_resend(std::span<const std::byte> body, ByteUnpacker& unpacker) {
  ByteReader reader(body);
  ResentPages resent{.sequence = TRY(reader.u64()), .refs = TRY(read_refs(reader)), .pages = {}};
  const auto pages = TRY(unpacker.unpack(reader, resent.refs.size() * kPageSize));
  if (pages.size() != resent.refs.size() * kPageSize) {
    return fail(Errc::kCorrupt, "a resend of other pages than it says");
  }
  resent.pages.assign(pages.begin(), pages.end());
  TRY(at_end(reader));
  return resent;
}

std::vector<std::byte> encode_ack(const Ack& ack) {
  ByteWriter body;
  body.u64(ack.sequence);
  body.u64(ack.template_pages);
  return body.take();
}

Result<Ack> decode_ack(std::span<const std::byte> body) {
  ByteReader reader(body);
  Ack ack;
  ack.sequence = TRY(reader.u64());
  ack.template_pages = TRY(reader.u64());
  TRY(at_end(reader));
  return ack;
}

std::vector<std::byte> encode_arrived(std::uint64_t sequence) {
  ByteWriter body;
  body.u64(sequence);
  return body.take();
}

Result<std::uint64_t> decode_arrived(std::span<const std::byte> body) {
  ByteReader reader(body);
  const std::uint64_t sequence = TRY(reader.u64());
  TRY(at_end(reader));
  return sequence;
}

PageDigest end_mac(const DigestKey& key, const StreamEnd& end) {
  ByteWriter numbers;
  numbers.u64(end.sequence);
  numbers.u64(end.stream_bytes);
  numbers.u8(1);  // As a batch's MAC, this would be one of more batches than there can be.
  StreamMac mac(key);
  mac.update(numbers.view());
  return mac.current();
}

std::vector<std::byte> encode_end(const StreamEnd& end) {
  ByteWriter body;
  body.u64(end.sequence);
  body.u64(end.stream_bytes);
  body.raw(end.mac.bytes);
  return body.take();
}

Result<StreamEnd> decode_end(std::span<const std::byte> body) {
  ByteReader reader(body);
  StreamEnd end;
  end.sequence = TRY(reader.u64());
  end.stream_bytes = TRY(reader.u64());
  const auto mac = TRY(reader.raw(end.mac.bytes.size()));
  std::copy(mac.begin(), mac.end(), end.mac.bytes.begin());
  TRY(at_end(reader));
  return end;
}

}  // namespace samepage::migrator
