#include "migrator/libvirt_rpc.h"

#include <algorithm>
#include <cstring>

namespace samepage::migrator {
namespace {

constexpr std::size_t kLengthBytes = 4;
constexpr std::size_t kMessageMax = (std::size_t{32} << 20U) + kLengthBytes;

constexpr std::uint32_t kRemoteProgram = 0x20008086;
constexpr std::uint32_t kRemoteVersion = 1;
constexpr std::uint32_t kTypeCall = 0;
constexpr std::uint32_t kTypeReply = 1;
constexpr std::uint32_t kStatusOk = 0;
constexpr std::uint32_t kFinish3 = 217;
constexpr std::uint32_t kFinish3Params = 306;

// A client waits for one Finish before it sends another; more than a few is no libvirt.
constexpr std::size_t kFinishesMax = 16;

std::uint32_t be32(const std::byte* bytes) {
  return std::to_integer<std::uint32_t>(bytes[0]) << 24U |
         std::to_integer<std::uint32_t>(bytes[1]) << 16U |
         std::to_integer<std::uint32_t>(bytes[2]) << 8U | std::to_integer<std::uint32_t>(bytes[3]);
}

bool is_finish(const RpcHeader& header) {
  if (header.program != kRemoteProgram || header.version != kRemoteVersion) return false;
  return header.procedure == kFinish3 || header.procedure == kFinish3Params;
}

}  // namespace

std::vector<RpcMessage> RpcFramer::feed(std::span<const std::byte> bytes) {
  std::vector<RpcMessage> messages;
  std::size_t at = 0;
  while (at < bytes.size() && !lost_) {
    // First the head, whose first word is the size; then the rest, of which the end is kept.
    const std::size_t known = seen_ < kLengthBytes ? kLengthBytes : size_;
    const std::size_t goal = seen_ < head_.size() ? std::min(known, head_.size()) : known;
    const std::size_t step = std::min(goal - seen_, bytes.size() - at);
    if (seen_ < head_.size()) std::memcpy(&head_[seen_], &bytes[at], step);
    keep_tail(bytes.subspan(at, step));
    seen_ += step;
    at += step;

    if (seen_ == kLengthBytes) {
      size_ = be32(head_.data());
      lost_ = size_ < head_.size() || size_ > kMessageMax;
    } else if (seen_ == size_) {
      messages.push_back({.header = header(), .last_word = be32(tail_.data()), .end = at});
      seen_ = 0;
      size_ = 0;
    }
  }
  return messages;
}

void RpcFramer::keep_tail(std::span<const std::byte> bytes) {
  const std::size_t fresh = std::min(bytes.size(), tail_.size());
  std::rotate(tail_.begin(), tail_.begin() + static_cast<std::ptrdiff_t>(fresh), tail_.end());
  std::copy(bytes.end() - static_cast<std::ptrdiff_t>(fresh), bytes.end(),
            tail_.end() - static_cast<std::ptrdiff_t>(fresh));
}

RpcHeader RpcFramer::header() const {
  return {.program = be32(&head_[4]),
          .version = be32(&head_[8]),
          .procedure = be32(&head_[12]),
          .type = be32(&head_[16]),
          .serial = be32(&head_[20]),
          .status = be32(&head_[24])};
}

bool FinishWatch::saw_from_source(std::span<const std::byte> bytes) {
  const MutexLock lock(mutex_);
  bool finishes = false;
  for (const RpcMessage& message : calls_.feed(bytes)) {
    // Finish's last argument is `cancelled`: a migration that failed is finished, too.
    const bool counts =
        is_finish(message.header) && message.header.type == kTypeCall && message.last_word == 0;
    if (counts && finishes_.size() < kFinishesMax) finishes_.push_back(message.header);
    finishes = finishes || counts;
  }
  return finishes;
}

std::optional<std::size_t> FinishWatch::saw_from_target(std::span<const std::byte> bytes) {
  const MutexLock lock(mutex_);
  std::optional<std::size_t> end;
  for (const RpcMessage& message : replies_.feed(bytes)) {
    if (!is_finish(message.header) || message.header.type != kTypeReply) continue;
    const auto called =
        std::find_if(finishes_.begin(), finishes_.end(), [&](const RpcHeader& call) {
          return call.serial == message.header.serial && call.procedure == message.header.procedure;
        });
    if (called == finishes_.end()) continue;
    finishes_.erase(called);
    if (message.header.status == kStatusOk) end = message.end;
  }
  return end;
}

bool FinishWatch::lost() const {
  const MutexLock lock(mutex_);
  return calls_.lost() || replies_.lost();
}

}  // namespace samepage::migrator
