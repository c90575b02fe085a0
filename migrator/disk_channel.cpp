#include "migrator/disk_channel.h"

#include <algorithm>
#include <array>

#include "core/byte_reader.h"
#include "core/byte_writer.h"
#include "core/check.h"

namespace samepage::migrator {
namespace {

constexpr std::size_t kHeaderBytes = 5;  // u8 word, u32 size.
constexpr std::size_t kReasonMax = 1'000;

std::size_t body_max(DiskWord word) {
  switch (word) {
    case DiskWord::kOffer:
    case DiskWord::kAnswer:
      return kDiskWordsMax;
    case DiskWord::kParcel:
      return kDiskParcelMax;
    case DiskWord::kRefused:
      return kReasonMax;
    default:
      return 0;
  }
}

}  // namespace

Result<void> DiskLink::send(DiskWord word, std::span<const std::byte> body, Deadline deadline) {
  CHECK(body.size() <= body_max(word));
  ByteWriter frame;
  frame.u8(static_cast<std::uint8_t>(word));
  frame.u32(static_cast<std::uint32_t>(body.size()));
  frame.raw(body);
  return stream_->write_all(frame.view(), deadline);
}

void DiskLink::refuse(const Error& why, Deadline deadline) {
  const auto text = std::as_bytes(std::span(why.message()));
  const auto sent =
      send(DiskWord::kRefused, text.first(std::min(text.size(), kReasonMax)), deadline);
  if (sent) finish();
}

void DiskLink::discard(Deadline deadline) {
  while (receive(deadline)) {
  }
}

Result<DiskMessage> DiskLink::receive(Deadline deadline) {
  std::array<std::byte, kHeaderBytes> header{};
  TRY(read_exactly(*stream_, header, deadline));
  ByteReader reader(header);
  const std::uint8_t word = TRY(reader.u8());
  const std::uint32_t size = TRY(reader.u32());
  if (word < static_cast<std::uint8_t>(DiskWord::kOffer) ||
      word > static_cast<std::uint8_t>(DiskWord::kRefused)) {
    return fail(Errc::kCorrupt, "an unknown word about a disk");
  }
  DiskMessage message{.word = static_cast<DiskWord>(word), .body = {}};
  if (size > body_max(message.word)) return fail(Errc::kCorrupt, "too long a word about a disk");
  message.body.resize(size);
  TRY(read_exactly(*stream_, message.body, deadline));
  return message;
}

Result<DiskMessage> DiskLink::expect(DiskWord word, Deadline deadline) {
  DiskMessage message = TRY(receive(deadline));
  if (message.word == word) return message;
  if (message.word != DiskWord::kRefused) return fail(Errc::kCorrupt, "not what was asked for");
  std::string why(message.body.size(), '\0');
  std::ranges::transform(message.body, why.begin(), [](std::byte byte) {
    const auto character = static_cast<unsigned char>(byte);
    return character < 0x20 ? ' ' : static_cast<char>(character);
  });
  return fail(Errc::kUnavailable, "the target: " + why);
}

}  // namespace samepage::migrator
