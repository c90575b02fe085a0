#include "migrator/stretch_encoder.h"

#include <cstring>
#include <utility>

namespace samepage::migrator {
namespace {

using Kind = StreamToken::Kind;

// A page that differs in more than this from its older version compresses about as well by itself.
constexpr std::size_t kDeltaBytesMax = 1536;

}  // namespace

EncodedStretch StretchEncoder::encode(CutStretch stretch, Effort effort, int zstd_level) {
  EncodedStretch encoded;
  const std::span<const std::byte> bytes = stretch.bytes.bytes;
  encoded.header = {.sequence = stretch.sequence,
                    .begin = stretch.begin,
                    .size = bytes.size(),
                    .mac = stretch_mac(known_.key, stretch.sequence, bytes)};
  if (effort == Effort::kPipe) {
    count(stretch);
    encoded.batch = pipe_batch(encoded.header, stretch.bytes);
  } else {
    encoded.batch = pack(stretch, encoded.header, effort == Effort::kLookUp, zstd_level);
  }
  encoded.stretch = std::move(stretch);
  return encoded;
}

EncodedBatch StretchEncoder::pack(const CutStretch& stretch, const BatchHeader& header,
                                  bool looks_up, int zstd_level) {
  begin_ = stretch.begin;
  pages_.clear();
  hits_ = 0;
  const BasePages* base = known_.base.load();
  if (looks_up) look_up(stretch);
  add_tokens(stretch, base);
  if (looks_up) known_.hits.saw(pages_.size(), hits_);
  return batch_.finish(header, zstd_level);
}

void StretchEncoder::count(const CutStretch& stretch) {
  for (const CutToken& cut : stretch.tokens) {
    known_.page_literals += cut.token.kind == Kind::kPage ? 1 : 0;
    known_.zero_pages += cut.token.kind == Kind::kZeroPage ? 1 : 0;
  }
}

void StretchEncoder::look_up(const CutStretch& stretch) {
  const std::byte* front = stretch.bytes.bytes.data();
  for (const auto& [token, older] : stretch.tokens) {
    if (token.kind != Kind::kPage) continue;
    const auto offset = static_cast<std::uint64_t>(token.page().data() - front);
    pages_.push_back(
        {.hash = hash_page(token.page(), known_.domain.seed), .place = stretch.begin + offset});
  }
  known_.contents.note(pages_, stretch.begin);
}

void StretchEncoder::add_tokens(const CutStretch& stretch, const BasePages* base) {
  auto looked_up = pages_.begin();
  for (const CutToken& cut : stretch.tokens) {
    switch (cut.token.kind) {
      case Kind::kBytes:
        batch_.add_literal(cut.token.bytes);
        break;
      case Kind::kZeroPage:
        ++known_.zero_pages;
        batch_.add_zero_page(cut.token);
        break;
      case Kind::kPage:
        add_page(cut, pages_.empty() ? nullptr : &*looked_up++, base);
    }
  }
}

void StretchEncoder::add_page(const CutToken& cut, const SentContents::Page* looked_up,
                              const BasePages* base) {
  if (looked_up != nullptr && add_known(cut, *looked_up, base)) {
    ++known_.page_refs;
    ++hits_;
  } else if (cut.older != kNowhere && add_older(cut)) {
    ++known_.page_deltas;
    ++hits_;
  } else {
    ++known_.page_literals;
    batch_.add_page(cut.token);
  }
}

// Cheapest first. A page that was sent before is rarely what the filter takes it for: it has just
// been written, and the target's answer that it lacks it would cost time when there is least of it.
bool StretchEncoder::add_known(const CutToken& cut, const SentContents::Page& page,
                               const BasePages* base) {
  const std::uint64_t number = cut.token.header / kPageSize;
  if (base != nullptr && cut.token.in_main_block && base->agrees(number, page.hash)) {
    batch_.add_placed(cut.token);
    return true;
  }
  if (page.before != kNowhere && holds(page.before, cut.token.page())) {
    batch_.add_copy(cut.token, page.before);
    return true;
  }
  if (cut.older != kNowhere || !known_.filter || !known_.filter->lookup(page.hash)) return false;
  batch_.add_found(cut.token, page.hash);
  return true;
}

bool StretchEncoder::add_older(const CutToken& cut) {
  if (cut.older + kPageSize > begin_) return false;
  const auto older = known_.history.find(cut.older);
  return older && batch_.add_delta(cut.token, cut.older,
                                   std::span<const std::byte>(older->bytes).first<kPageSize>(),
                                   kDeltaBytesMax);
}

bool StretchEncoder::holds(std::uint64_t place, PageView page) {
  const auto sent = known_.history.find(place);
  return sent && std::memcmp(sent->bytes.data(), page.data(), page.size()) == 0;
}

}  // namespace samepage::migrator
