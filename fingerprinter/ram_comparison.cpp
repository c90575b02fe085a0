#include "fingerprinter/ram_comparison.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/check.h"
#include "fingerprinter/guest_kernel.h"

namespace samepage::fingerprinter {
namespace {

constexpr std::size_t kWords = kPageSize / sizeof(std::uint64_t);

struct Words {
  std::uint64_t a = 0;
  std::uint64_t b = 0;
};

bool is_kernel_address(std::uint64_t word) {
  return word >= 0xffff'8000'0000'0000 && word <= 0xffff'ffff'ffff'f000;
}

bool is_user_address(std::uint64_t word) {
  return word >= 0x0000'5000'0000'0000 && word < 0x0000'8000'0000'0000;
}

/// A present page-table entry: flags, an address below 64 TiB, and whether code may run there.
bool is_table_entry(std::uint64_t word) {
  return (word & 1U) != 0 && (word & 0x7fff'c000'0000'0000) == 0 && (word & ~0xfffU) != 0;
}

bool are_addresses(const Words& words) {
  if (is_kernel_address(words.a)) return is_kernel_address(words.b) || words.b == 0;
  if (is_user_address(words.a)) return is_user_address(words.b) || words.b == 0;
  const bool same_flags = (words.a & 0xfffU) == (words.b & 0xfffU);
  return is_table_entry(words.a) && is_table_entry(words.b) && same_flags &&
         words.a >> 63U == words.b >> 63U;
}

/// A clock of nanoseconds that is a minute off, or one of two 32-bit numbers in a word.
bool are_near(const Words& words) {
  const std::uint64_t apart = words.a > words.b ? words.a - words.b : words.b - words.a;
  return apart < std::uint64_t{1} << 36U;
}

bool is_text(std::uint64_t word) {
  for (unsigned i = 0; i < sizeof word; ++i, word >>= 8U) {
    const auto character = static_cast<unsigned char>(word & 0xffU);
    const bool is_printable = character >= ' ' && character <= '~';
    if (!is_printable && character != '\n' && character != '\t' && character != 0) return false;
  }
  return true;
}

Cause cause_of_words(const Words& words) {
  if (are_addresses(words)) return Cause::kAddresses;
  // Small numbers look like text when their bytes happen to be letters, but seldom all of them.
  if (words.a >> 48U != 0 && words.b >> 48U != 0 && is_text(words.a) && is_text(words.b)) {
    return Cause::kText;
  }
  return are_near(words) ? Cause::kNumbers : Cause::kOther;
}

/// Which of these kinds' pages are told apart by their words.
bool has_words(PageKind kind) {
  return kind == PageKind::kSlab || kind == PageKind::kPageCache ||
         kind == PageKind::kSharedMemory || kind == PageKind::kProcess;
}

Cause cause_at(const NamedRam& guest, const NamedRam& other, std::size_t page) {
  if (page >= other.ram().pages() || other.is_zero(page) || other.kind(page) != guest.kind(page) ||
      (has_words(guest.kind(page)) && other.word(page) != guest.word(page))) {
    return Cause::kOtherUse;
  }
  // Code is only ever changed to fit where it lies: its addresses are no whole words.
  const bool is_code =
      guest.kind(page) == PageKind::kKernelText || guest.kind(page) == PageKind::kModuleText;
  if (is_code) return Cause::kAddresses;
  return cause_of(guest.ram().page(page), other.ram().page(page));
}

}  // namespace

NamedRam NamedRam::of(RamImage ram) {
  PageNames names;
  std::string why;
  if (const auto kernel = GuestKernel::find(ram)) {
    names = kernel->name_pages();
  } else {
    names.uses.resize(ram.pages());
    why = kernel.error().message();
  }
  NamedRam named(std::move(ram), std::move(names));
  named.why_unnamed_ = std::move(why);
  return named;
}

NamedRam::NamedRam(RamImage ram, PageNames names)
    : ram_(std::move(ram)), names_(std::move(names)), hashes_(ram_.pages()) {
  CHECK(names_.uses.size() == ram_.pages());
  PageHasher(HashSeed{}).hash(ram_.bytes(), hashes_);
  zero_.reserve(ram_.pages());
  for (std::size_t i = 0; i < ram_.pages(); ++i) {
    zero_.push_back(samepage::is_zero(ram_.page(i)));
    if (!zero_.back()) contents_.push_back(hashes_[i]);
  }
  std::ranges::sort(contents_);
}

bool NamedRam::holds(PageHash content) const {
  return std::ranges::binary_search(contents_, content);
}

Likeness& Likeness::operator+=(const Likeness& other) {
  same_place += other.same_place;
  elsewhere += other.elsewhere;
  different += other.different;
  return *this;
}

std::string_view name_of(Cause cause) {
  static constexpr std::array<std::string_view, kCauses> kNames = {
      "another use of the page", "rewritten", "addresses",
      "clocks and counters",     "text",      "random and other values"};
  return kNames[static_cast<std::size_t>(cause)];
}

std::uint64_t Divergence::different_named() const {
  std::uint64_t named = 0;
  for (std::size_t i = 0; i < kPageKinds; ++i) {
    if (is_named(static_cast<PageKind>(i))) named += by_kind[i].different;
  }
  return named;
}

Divergence& Divergence::operator+=(const Divergence& other) {
  zero += other.zero;
  all += other.all;
  for (std::size_t i = 0; i < kPageKinds; ++i) by_kind[i] += other.by_kind[i];
  for (const auto& [name, likeness] : other.by_word) by_word[name] += likeness;
  for (std::size_t i = 0; i < kCauses; ++i) different_by_cause[i] += other.different_by_cause[i];
  return *this;
}

Cause cause_of(PageView page, PageView other) {
  std::array<std::size_t, kCauses> words_by_cause{};
  std::size_t differing = 0;
  for (std::size_t i = 0; i < kWords; ++i) {
    Words words;
    std::memcpy(&words.a, page.data() + i * sizeof words.a, sizeof words.a);
    std::memcpy(&words.b, other.data() + i * sizeof words.b, sizeof words.b);
    if (words.a == words.b) continue;
    ++differing;
    ++words_by_cause[static_cast<std::size_t>(cause_of_words(words))];
  }
  const auto most = std::ranges::max_element(words_by_cause);
  const auto cause = static_cast<Cause>(most - words_by_cause.begin());
  if (differing > kWords / 2 && cause == Cause::kOther) return Cause::kRewritten;
  return cause;
}

Divergence compare(const NamedRam& guest, const NamedRam& other) {
  Divergence found;
  for (std::size_t i = 0; i < guest.ram().pages(); ++i) {
    if (guest.is_zero(i)) {
      ++found.zero;
      continue;
    }
    Likeness page;
    const bool is_same_place =
        i < other.ram().pages() && !other.is_zero(i) && other.hash(i) == guest.hash(i);
    if (is_same_place) {
      page.same_place = 1;
    } else if (other.holds(guest.hash(i))) {
      page.elsewhere = 1;
    } else {
      page.different = 1;
      ++found.different_by_cause[static_cast<std::size_t>(cause_at(guest, other, i))];
    }
    found.all += page;
    found.by_kind[static_cast<std::size_t>(guest.kind(i))] += page;
    if (has_words(guest.kind(i))) found.by_word[{guest.kind(i), guest.word(i)}] += page;
  }
  return found;
}

}  // namespace samepage::fingerprinter
