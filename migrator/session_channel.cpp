#include "migrator/session_channel.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include "core/byte_reader.h"
#include "core/byte_writer.h"

namespace samepage::migrator {
namespace {

constexpr std::uint32_t kMagic = 0x53504d31;  // Also the version of everything in this file.
constexpr std::size_t kChannelBytes = 5;
constexpr std::size_t kTextMax = 1000;
constexpr int kSignalsMax = 16;
constexpr std::size_t kSignalBytesMin = 3;
constexpr std::size_t kSignalBytesMax = kTextMax + 8;

Result<Signal> decode(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  const auto kind = TRY(reader.u8());
  const auto resume = TRY(reader.u8());
  std::string text = TRY(reader.text(kTextMax));
  const bool known = kind >= static_cast<std::uint8_t>(SignalKind::kReady) &&
                     kind <= static_cast<std::uint8_t>(SignalKind::kAborted);
  if (!known || resume > 1 || !reader.at_end()) return fail(Errc::kCorrupt, "not a signal");
  return Signal{static_cast<SignalKind>(kind), resume == 1, std::move(text)};
}

}  // namespace

Result<void> send_channel(ByteStream& stream, Channel channel, Deadline deadline) {
  ByteWriter writer;
  writer.u32(kMagic);
  writer.u8(static_cast<std::uint8_t>(channel));
  return stream.write_all(writer.view(), deadline);
}

Result<Channel> receive_channel(ByteStream& stream, Deadline deadline) {
  std::array<std::byte, kChannelBytes> bytes{};
  TRY(read_exactly(stream, bytes, deadline));
  ByteReader reader(bytes);
  if (TRY(reader.u32()) != kMagic) return fail(Errc::kCorrupt, "the peer speaks another version");
  const auto channel = TRY(reader.u8());
  if (channel < static_cast<std::uint8_t>(Channel::kSignal) ||
      channel > static_cast<std::uint8_t>(Channel::kDisk)) {
    return fail(Errc::kCorrupt, "no such channel: " + std::to_string(channel));
  }
  return static_cast<Channel>(channel);
}

Result<void> SignalLink::send(const Signal& signal, Deadline deadline) {
  ByteWriter body;
  body.u8(static_cast<std::uint8_t>(signal.kind));
  body.u8(signal.resume ? 1 : 0);
  body.text(std::string_view(signal.text).substr(0, kTextMax));
  ByteWriter frame;
  frame.u32(static_cast<std::uint32_t>(body.size()));
  frame.raw(body.view());
  const MutexLock lock(send_mutex_);
  return stream_->write_all(frame.view(), deadline);
}

Result<Signal> SignalLink::receive(Deadline deadline) {
  std::array<std::byte, sizeof(std::uint32_t)> length{};
  TRY(read_exactly(*stream_, length, deadline));
  const std::uint32_t size = TRY(ByteReader(length).u32());
  if (size < kSignalBytesMin || size > kSignalBytesMax) {
    return fail(Errc::kCorrupt, "a signal of " + std::to_string(size) + " bytes");
  }
  std::vector<std::byte> body(size);
  TRY(read_exactly(*stream_, body, deadline));
  return decode(body);
}

Error SignalLink::receive_all(Deadline deadline,
                              const std::function<Result<void>(const Signal&)>& hear) {
  for (int signals = 0;; ++signals) {
    const auto signal = receive(deadline);
    if (!signal) return signal.error();
    if (signals == kSignalsMax) return {Errc::kCorrupt, "too many signals"};
    if (const auto heard = hear(*signal); !heard) return heard.error();
  }
}

}  // namespace samepage::migrator
