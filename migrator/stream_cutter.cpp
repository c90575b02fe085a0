#include "migrator/stream_cutter.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/check.h"

namespace samepage::migrator {
namespace {

Deadline after(std::chrono::microseconds wait) {
  return std::chrono::steady_clock::now() + wait;
}

}  // namespace

StreamCutter::StreamCutter(ByteStream& qemu, SlabPool& slabs, const RelayOptions& options,
                           PassWatch* passes)
    : qemu_(qemu),
      slabs_(slabs),
      options_(options),
      passes_(passes),
      versions_(options.history_bytes_max),
      slab_(slabs.take()) {}

Result<std::optional<CutStretch>> StreamCutter::next(std::size_t size_max) {
  make_room(size_max);
  while (!ended_ && parsed_ == begin_) TRY(fill(size_max));
  if (parsed_ == begin_) return std::optional<CutStretch>();

  CutStretch stretch{.sequence = sequence_++,
                     .begin = stream_begin_,
                     .bytes = {slab_, slab_->bytes().subspan(begin_, parsed_ - begin_)},
                     .tokens = std::exchange(tokens_, {})};
  stream_begin_ += stretch.bytes.bytes.size();
  begin_ = parsed_;
  return std::optional(std::move(stretch));
}

/// Only the front of a record, read behind the last stretch, ever moves.
void StreamCutter::make_room(std::size_t size_max) {
  CHECK(size_max >= StreamParser::kRecordBytesMax);
  if (slab_->bytes().size() - begin_ >= size_max) return;
  const auto front = unparsed();
  auto next = slabs_.take();
  std::memcpy(next->bytes().data(), front.data(), front.size());
  slab_ = std::move(next);
  begin_ = parsed_ = 0;
  filled_ = front.size();
}

// The front of a record is of no use to the other QEMU, so its rest is waited for a little longer;
// but not for long, because what looks like a record may be something else that has an end there.
Result<void> StreamCutter::fill(std::size_t size_max) {
  Deadline due = after(options_.batch_age_max);
  while (filled_ - begin_ < size_max) {
    const bool waiting = filled_ == begin_;
    Deadline deadline = waiting ? after(options_.quiet_max) : due;
    if (parsed_ > begin_) deadline = std::min(due, after(options_.flush_after));

    const auto room = slab_->bytes().subspan(filled_, begin_ + size_max - filled_);
    const auto size = qemu_.read_some(room, deadline);
    if (!size && size.error().code() == Errc::kTimedOut && !waiting) {
      if (parsed_ == begin_) drain();
      return {};
    }
    if (!size) return tl::unexpected(Error(size.error()).within("read from QEMU"));
    ended_ = *size == 0;
    if (ended_) {
      drain();
      return {};
    }
    if (waiting) due = after(options_.batch_age_max);
    filled_ += *size;
    tokenize();
  }
  return {};
}

std::span<std::byte> StreamCutter::unparsed() const {
  return slab_->bytes().subspan(parsed_, filled_ - parsed_);
}

void StreamCutter::tokenize() {
  const bool was_opaque = parser_.opaque();
  while (const auto token = parser_.next(unparsed())) add(*token);
  if (passes_ != nullptr && parser_.opaque() && !was_opaque) passes_->out_of_sight();
}

void StreamCutter::drain() {
  if (!unparsed().empty()) add(parser_.drain(unparsed()));
}

void StreamCutter::add(const StreamToken& token) {
  CutToken cut{.token = token};
  parsed_ += token.bytes.size();
  if (token.kind == StreamToken::Kind::kPage) {
    cut.older = versions_.note(token, stream_begin_ + (parsed_ - begin_) - kPageSize);
  }
  if (token.kind != StreamToken::Kind::kBytes) follow_passes(token);
  tokens_.push_back(cut);
}

void StreamCutter::follow_passes(const StreamToken& page) {
  if (passes_ == nullptr || !page.in_main_block) return;
  const std::uint64_t number = page.header / kPageSize;
  const bool is_new_pass = number < last_page_;
  last_page_ = number;
  if (is_new_pass) {
    is_first_pass_ = false;
    passes_->further_pass(parser_.main_block_bytes());
  } else if (is_first_pass_ && parser_.main_block_bytes() > 0) {
    passes_->first_pass(parser_.main_block_bytes() - number * kPageSize);
  }
}

}  // namespace samepage::migrator
