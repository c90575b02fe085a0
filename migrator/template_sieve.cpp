#include "migrator/template_sieve.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/check.h"

namespace samepage::migrator {
namespace {

// Of QEMU's RAM records, see stream_parser.cpp.
constexpr std::uint64_t kContinues = 0x20;

}  // namespace

TemplateSieve::TemplateSieve(Template mapped)
    : ram_(std::move(mapped.ram)),
      block_(std::move(mapped.block)),
      written_(std::move(mapped.written)),
      kept_(written_.size()) {
  CHECK(written_.size() == ram_->pages());
}

Result<void> TemplateSieve::pass(std::span<const std::byte> bytes, const Write& write) {
  // The record that waits, with as much as can belong to it, is looked at apart from the rest.
  while (!waiting_.empty() && !bytes.empty()) {
    const std::size_t before = waiting_.size();
    const std::size_t more = std::min(bytes.size(), StreamParser::kRecordBytesMax - before);
    waiting_.insert(waiting_.end(), bytes.begin(),
                    bytes.begin() + static_cast<std::ptrdiff_t>(more));
    const std::size_t taken = TRY(pass_whole(waiting_, write));
    CHECK(taken > 0 || more == bytes.size());
    if (taken == 0) return {};
    CHECK(taken > before);
    bytes = bytes.subspan(taken - before);
    waiting_.clear();
  }
  const std::size_t taken = TRY(pass_whole(bytes, write));
  waiting_.assign(bytes.begin() + static_cast<std::ptrdiff_t>(taken), bytes.end());
  return {};
}

Result<void> TemplateSieve::finish(const Write& write) {
  if (waiting_.empty()) return {};
  const auto rest = std::exchange(waiting_, {});
  return write(rest);
}

/// Returns how many bytes are whole records; what is behind them was not looked at.
Result<std::size_t> TemplateSieve::pass_whole(std::span<const std::byte> bytes,
                                              const Write& write) {
  std::size_t begin = 0;  // [begin, end) must be written.
  std::size_t end = 0;
  while (const auto token = parser_.next(bytes.subspan(end))) {
    if (parser_.postcopy()) {
      return fail(Errc::kInvalid, "a guest on its template cannot come by post-copy");
    }
    const std::size_t behind = end + token->bytes.size();
    if (changes_nothing(*token)) {
      if (end > begin) TRY(write(bytes.subspan(begin, end - begin)));
      begin = behind;
    }
    end = behind;
  }
  if (end > begin) TRY(write(bytes.subspan(begin, end - begin)));
  return end;
}

/// A record that names its block always passes, so that QEMU knows of which block those are that do
/// not name it.
bool TemplateSieve::changes_nothing(const StreamToken& token) {
  if (token.kind == StreamToken::Kind::kBytes || !token.in_main_block) return false;
  const std::uint64_t page = token.header / kPageSize;
  if (page >= written_.size()) return false;
  const bool keep = is_mapped() && !written_[page] && (token.header & kContinues) != 0 &&
                    equals_template(token, page);
  if (kept_[page] && !keep) --pages_kept_;
  if (!kept_[page] && keep) ++pages_kept_;
  kept_[page] = keep;
  written_[page] = !keep;
  return keep;
}

bool TemplateSieve::is_mapped() const {
  return parser_.main_block_name() == block_ &&
         parser_.main_block_bytes() == written_.size() * kPageSize;
}

bool TemplateSieve::equals_template(const StreamToken& token, std::uint64_t page) {
  if (!ram_->read(page, page_)) return false;
  if (token.kind == StreamToken::Kind::kZeroPage) return is_zero(page_);
  return std::memcmp(token.page().data(), page_.data(), kPageSize) == 0;
}

}  // namespace samepage::migrator
