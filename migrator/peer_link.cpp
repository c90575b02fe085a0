#include "migrator/peer_link.h"

#include <array>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "core/check.h"

namespace samepage::migrator {
namespace {

constexpr std::size_t kHeaderBytes = 5;

}  // namespace

// One buffer and one write, so that a message does not go out as two packets.
Result<void> PeerLink::send(MessageType type, std::span<const std::byte> body, Deadline deadline) {
  CHECK(body.size() <= body_bytes_max(type));
  ByteWriter header;
  header.u8(static_cast<std::uint8_t>(type));
  header.u32(static_cast<std::uint32_t>(body.size()));

  const MutexLock lock(sending_);
  sent_.assign(header.view().begin(), header.view().end());
  sent_.insert(sent_.end(), body.begin(), body.end());
  TRY(stream_.write_all(sent_, deadline));
  bytes_.fetch_add(sent_.size(), std::memory_order_relaxed);
  return {};
}

Result<PeerLink::Message> PeerLink::receive(Deadline deadline) {
  std::array<std::byte, kHeaderBytes> header{};
  TRY(read_all(header, deadline));
  ByteReader reader(header);
  const auto type = static_cast<MessageType>(TRY(reader.u8()));
  const std::size_t size = TRY(reader.u32());
  const std::size_t size_max = body_bytes_max(type);
  if (size_max == 0) return fail(Errc::kCorrupt, "a message of an unknown type");
  if (size > size_max) return fail(Errc::kCorrupt, "a message of too many bytes");
  received_.resize(size);
  TRY(read_all(received_, deadline));
  bytes_.fetch_add(kHeaderBytes + size, std::memory_order_relaxed);
  return Message{.type = type, .body = received_};
}

Result<void> PeerLink::read_all(std::span<std::byte> buffer, Deadline deadline) {
  while (!buffer.empty()) {
    const std::size_t size = TRY(stream_.read_some(buffer, deadline));
    if (size == 0) return fail(Errc::kUnavailable, "the peer closed the connection");
    buffer = buffer.subspan(size);
  }
  return {};
}

}  // namespace samepage::migrator
