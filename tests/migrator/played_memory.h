#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "migrator/stream_parser.h"

namespace samepage::migrator {

/// The RAM of a target's QEMU that maps a template and reads a migration stream.
class PlayedMemory {
 public:
  using Page = std::vector<std::byte>;

  explicit PlayedMemory(std::vector<Page> of_template)
      : pages(std::move(of_template)), own(pages.size()) {}

  void read(std::span<const std::byte> bytes) {
    waiting_.insert(waiting_.end(), bytes.begin(), bytes.end());
    std::span<const std::byte> rest = waiting_;
    while (const auto token = parser_.next(rest)) {
      apply(*token);
      rest = rest.subspan(token->bytes.size());
    }
    waiting_ = {rest.begin(), rest.end()};
  }

  std::vector<Page> pages;
  std::vector<bool> own;  ///< Written, and so not the template's any more.

 private:
  void apply(const StreamToken& token) {
    const std::uint64_t number = token.header / kPageSize;
    const bool is_page = token.kind != StreamToken::Kind::kBytes && token.in_main_block;
    if (!is_page || number >= pages.size()) return;
    Page content(kPageSize);
    if (token.kind == StreamToken::Kind::kPage) std::ranges::copy(token.page(), content.begin());
    // QEMU looks before it fills a page with zeros.
    const bool is_zero_page = token.kind == StreamToken::Kind::kZeroPage;
    if (is_zero_page && pages[number] == content) return;
    pages[number] = content;
    own[number] = true;
  }

  StreamParser parser_;
  std::vector<std::byte> waiting_;
};

}  // namespace samepage::migrator
