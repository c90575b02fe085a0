#include "migrator/peer_link.h"

#include <algorithm>
#include <array>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "core/check.h"

namespace samepage::migrator {
namespace {

constexpr std::size_t kHeaderBytes = 5;
constexpr std::size_t kFirstWriteBytes = 16U << 10U;  // A whole TLS record.

}  // namespace

// The header and a short head are one write, so that a message does not go out as two packets.
Result<void> PeerLink::send(MessageType type, std::span<const std::byte> head,
                            std::span<const std::byte> tail, Deadline deadline) {
  CHECK(head.size() + tail.size() <= body_bytes_max(type));
  ByteWriter header;
  header.u8(static_cast<std::uint8_t>(type));
  header.u32(static_cast<std::uint32_t>(head.size() + tail.size()));
  const std::size_t first = std::min(head.size(), kFirstWriteBytes - kHeaderBytes);
  header.raw(head.first(first));

  const MutexLock lock(sending_);
  TRY(stream_.write_all(header.view(), deadline));
  if (first < head.size()) TRY(stream_.write_all(head.subspan(first), deadline));
  if (!tail.empty()) TRY(stream_.write_all(tail, deadline));
  bytes_.fetch_add(kHeaderBytes + head.size() + tail.size(), std::memory_order_relaxed);
  return {};
}

Result<PeerLink::Message> PeerLink::receive(Deadline deadline) {
  std::array<std::byte, kHeaderBytes> header{};
  TRY(read_exactly(stream_, header, deadline));
  ByteReader reader(header);
  const auto type = static_cast<MessageType>(TRY(reader.u8()));
  const std::size_t size = TRY(reader.u32());
  const std::size_t size_max = body_bytes_max(type);
  if (size_max == 0) return fail(Errc::kCorrupt, "a message of an unknown type");
  if (size > size_max) return fail(Errc::kCorrupt, "a message of too many bytes");
  Message message{.type = type, .memory = slabs_.take_bytes(size), .body = {}};
  TRY(read_exactly(stream_, message.memory.bytes, deadline));
  message.body = message.memory.bytes;
  bytes_.fetch_add(kHeaderBytes + size, std::memory_order_relaxed);
  return message;
}

}  // namespace samepage::migrator
