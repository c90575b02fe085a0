#include "migrator/relay_messages.h"

#include <algorithm>
#include <string>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "migrator/batch.h"

namespace samepage::migrator {
namespace {

constexpr std::uint64_t kMagic = 0x59'41'4C'45'52'50'41'53;  // "SAPRELAY"
constexpr std::uint32_t kVersion = 1;

Result<void> at_end(const ByteReader& reader) {
  if (!reader.at_end()) return fail(Errc::kCorrupt, "bytes behind the end of a message");
  return {};
}

}  // namespace

std::size_t body_bytes_max(MessageType type) {
  switch (type) {
    case MessageType::kFilter:
      return 64U << 20U;
    case MessageType::kBatch:
    case MessageType::kResend:
      return 2U << 20U;
    case MessageType::kReturnPath:
      return 64U << 10U;
    case MessageType::kHello:
    case MessageType::kMissing:
    case MessageType::kAck:
    case MessageType::kEnd:
      return 4U << 10U;
  }
  return 0;
}

std::vector<std::byte> encode_hello() {
  ByteWriter body;
  body.u64(kMagic);
  body.u32(kVersion);
  return body.take();
}

Result<void> check_hello(std::span<const std::byte> body) {
  ByteReader reader(body);
  if (TRY(reader.u64()) != kMagic) return fail(Errc::kCorrupt, "the peer is no migration relay");
  const std::uint32_t version = TRY(reader.u32());
  if (version != kVersion) {
    return fail(Errc::kInvalid, "the peer speaks relay version " + std::to_string(version) +
                                    ", this host " + std::to_string(kVersion));
  }
  return at_end(reader);
}

std::vector<std::byte> encode_missing(const MissingPages& missing) {
  ByteWriter body;
  body.u64(missing.sequence);
  body.varint(missing.refs.size());
  for (const std::uint32_t ref : missing.refs) body.varint(ref);
  return body.take();
}

Result<MissingPages> decode_missing(std::span<const std::byte> body) {
  ByteReader reader(body);
  MissingPages missing{.sequence = TRY(reader.u64()), .refs = {}};
  const auto count = TRY(reader.varint(kBatchRefsMax));
  if (count == 0) return fail(Errc::kCorrupt, "a request for no pages");
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto ref = static_cast<std::uint32_t>(TRY(reader.varint(kBatchRefsMax - 1)));
    if (i > 0 && ref <= missing.refs.back())
      return fail(Errc::kCorrupt, "page numbers in disorder");
    missing.refs.push_back(ref);
  }
  TRY(at_end(reader));
  return missing;
}

std::vector<std::byte> encode_resend(const ResentPages& resent, BytePacker& packer) {
  ByteWriter body;
  body.u64(resent.sequence);
  body.varint(resent.pages.size() / kPageSize);
  packer.pack(resent.pages, body);
  return body.take();
}

Result<ResentPages> decode_resend(std::span<const std::byte> body, ByteUnpacker& unpacker) {
  ByteReader reader(body);
  ResentPages resent{.sequence = TRY(reader.u64()), .pages = {}};
  const auto count = TRY(reader.varint(kBatchRefsMax));
  if (count == 0) return fail(Errc::kCorrupt, "a resend of no pages");
  resent.pages = TRY(unpacker.unpack(reader, count * kPageSize));
  TRY(at_end(reader));
  return resent;
}

std::vector<std::byte> encode_ack(std::uint64_t sequence) {
  ByteWriter body;
  body.u64(sequence);
  return body.take();
}

Result<std::uint64_t> decode_ack(std::span<const std::byte> body) {
  ByteReader reader(body);
  const auto sequence = TRY(reader.u64());
  TRY(at_end(reader));
  return sequence;
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
