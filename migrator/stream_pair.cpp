#include "migrator/stream_pair.h"

#include <vector>

namespace samepage::migrator {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{64} * 1024;

}  // namespace

StreamPair::StreamPair(std::unique_ptr<ByteStream> near, std::unique_ptr<ByteStream> far,
                       StreamPairHooks hooks, Deadline deadline)
    : near_(std::move(near)), far_(std::move(far)), hooks_(std::move(hooks)), deadline_(deadline) {
  outward_ = std::jthread([this] { copy(*near_, *far_, hooks_.to_far); });
  inward_ = std::jthread([this] { copy(*far_, *near_, hooks_.to_near); });
}

StreamPair::~StreamPair() {
  shut_down();
}

void StreamPair::shut_down() {
  near_->shut_down();
  far_->shut_down();
}

void StreamPair::copy(ByteStream& from, ByteStream& to, const Pass& pass) {
  std::vector<std::byte> buffer(kBufferBytes);
  bool broken = false;
  for (bool ended = false; !ended && !broken;) {
    const auto got = from.read_some(buffer, deadline_);
    if (!got) {
      broken = true;
    } else if (*got == 0) {
      ended = true;
    } else {
      const auto bytes = std::span<const std::byte>(buffer).first(*got);
      broken = !(pass ? pass(bytes) : to.write_all(bytes, deadline_));
    }
  }
  if (!broken) broken = !to.finish_writing();
  if (broken) shut_down();
  --running_;
}

}  // namespace samepage::migrator
