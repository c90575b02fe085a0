#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/page_hash.h"
#include "core/result.h"
#include "fingerprinter/page_names.h"
#include "fingerprinter/ram_image.h"

namespace samepage::fingerprinter {

/// The RAM of one guest at one moment, each page named and hashed, to be compared with others'.
///
/// Threads: immutable. Lifetime: owns the image.
class NamedRam {
 public:
  /// Names come from the guest's kernel; without one that can be read (why_unnamed()), every page
  /// is of kind kUnknown.
  static NamedRam of(RamImage ram);

  /// For tests: with names of one's own, one for each page.
  NamedRam(RamImage ram, PageNames names);

  const RamImage& ram() const { return ram_; }
  const std::string& why_unnamed() const { return why_unnamed_; }

  bool is_zero(std::size_t page) const { return zero_[page]; }
  PageHash hash(std::size_t page) const { return hashes_[page]; }
  PageKind kind(std::size_t page) const { return names_.uses[page].kind; }
  const std::string& word(std::size_t page) const { return names_.words[names_.uses[page].word]; }

  /// A page somewhere in it has this content, which is not zeros.
  bool holds(PageHash content) const;

 private:
  RamImage ram_;
  PageNames names_;
  std::string why_unnamed_;
  std::vector<PageHash> hashes_;
  std::vector<bool> zero_;
  std::vector<PageHash> contents_;  ///< Of the pages that are not zero, rising.
};

/// Pages of one guest that hold data, by where another has the same content.
struct Likeness {
  std::uint64_t same_place = 0;  ///< At the same address.
  std::uint64_t elsewhere = 0;
  std::uint64_t different = 0;  ///< Nowhere.

  std::uint64_t total() const { return same_place + elsewhere + different; }
  Likeness& operator+=(const Likeness& other);
};

/// Why a page differs, told from how it differs from the other guest's page at the same address.
enum class Cause : std::uint8_t {
  kOtherUse,   ///< There is zeros or something else: the guests put their pages elsewhere.
  kRewritten,  ///< The same kind of page, and more than half of it differs.
  kAddresses,  ///< Mostly pointers, page-table entries, code that was moved: KASLR, placement.
  kNumbers,    ///< Mostly numbers that are near each other: clocks and counters.
  kText,       ///< Text, such as log lines with their times.
  kOther,      ///< Other values: random seeds, hashes, flags.
};
inline constexpr std::size_t kCauses = 6;
std::string_view name_of(Cause cause);

/// How alike two guests are, seen from one of them.
struct Divergence {
  std::uint64_t zero = 0;
  Likeness all;
  std::array<Likeness, kPageKinds> by_kind{};
  /// By kind and word: of kinds whose pages have names of their own.
  std::map<std::pair<PageKind, std::string>, Likeness> by_word;
  std::array<std::uint64_t, kCauses> different_by_cause{};

  /// Pages that differ and whose kind says what they are.
  std::uint64_t different_named() const;

  /// Sums, over pairs.
  Divergence& operator+=(const Divergence& other);
};

/// The pages of `guest` against those of `other`.
Divergence compare(const NamedRam& guest, const NamedRam& other);

/// The cause for a page that differs from the other guest's of the same kind at the same address.
Cause cause_of(PageView page, PageView other);

}  // namespace samepage::fingerprinter
