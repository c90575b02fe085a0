#include "fingerprinter/block_trace.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <span>
#include <unordered_map>
#include <utility>

namespace samepage::fingerprinter {
namespace {

constexpr std::size_t kLineMax = 4096;
constexpr std::size_t kMeeting = 16;
constexpr std::size_t kAheadMax = 65'536;

using Blocks = std::vector<std::uint64_t>;

/// "Trace 0: 0x7f5c2c000100 [00000000/ffffffff81000000/00000033/ff000000] start_kernel": the
/// address between the first two slashes.
std::optional<std::uint64_t> address_of(std::string_view line) {
  if (!line.starts_with("Trace ")) return std::nullopt;
  const std::size_t bracket = line.find('[');
  if (bracket == std::string_view::npos) return std::nullopt;
  line.remove_prefix(bracket);
  const std::size_t slash = line.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  line.remove_prefix(slash + 1);
  const std::string_view digits = line.substr(0, line.find('/'));
  std::uint64_t address = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), address, 16);
  if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  return address;
}

/// A hash of the kMeeting blocks from each place on; none for the last ones.
std::vector<std::uint64_t> meeting_hashes(const Blocks& blocks) {
  constexpr std::uint64_t kBase = 0x9E37'79B9'7F4A'7C15;
  if (blocks.size() < kMeeting) return {};
  std::uint64_t last_weight = 1;
  for (std::size_t i = 1; i < kMeeting; ++i) last_weight *= kBase;
  const auto mixed = [&](std::size_t i) { return (blocks[i] + 1) * 0xD6E8'FEB8'6659'FD93; };
  std::vector<std::uint64_t> hashes;
  hashes.reserve(blocks.size());
  std::uint64_t hash = 0;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (i >= kMeeting) hash -= mixed(i - kMeeting) * last_weight;
    hash = hash * kBase + mixed(i);
    if (i + 1 >= kMeeting) hashes.push_back(hash);
  }
  return hashes;
}

struct Step {
  std::size_t a = 0;
  std::size_t b = 0;
};

/// How far ahead both are alike again; the end, or kAheadMax, when nowhere.
Step find_meeting(std::span<const std::uint64_t> a, std::span<const std::uint64_t> b) {
  std::unordered_map<std::uint64_t, std::size_t> seen_a;
  std::unordered_map<std::uint64_t, std::size_t> seen_b;
  const std::size_t ahead = std::min(std::max(a.size(), b.size()), kAheadMax);
  for (std::size_t i = 0; i < ahead; ++i) {
    if (i < a.size()) {
      const auto met = seen_b.find(a[i]);
      if (met != seen_b.end()) return {.a = i, .b = met->second};
      seen_a.emplace(a[i], i);
    }
    if (i < b.size()) {
      const auto met = seen_a.find(b[i]);
      if (met != seen_a.end()) return {.a = met->second, .b = i};
      seen_b.emplace(b[i], i);
    }
  }
  return {.a = std::max(ahead, kMeeting), .b = std::max(ahead, kMeeting)};
}

std::span<const std::uint64_t> from(const std::vector<std::uint64_t>& hashes, std::size_t at) {
  return std::span(hashes).subspan(std::min(at, hashes.size()));
}

std::uint64_t common_blocks(const Blocks& a, const Blocks& b) {
  std::unordered_map<std::uint64_t, std::uint64_t> counts;
  for (const std::uint64_t block : a) ++counts[block];
  std::uint64_t common = 0;
  for (const std::uint64_t block : b) {
    const auto found = counts.find(block);
    if (found == counts.end() || found->second == 0) continue;
    --found->second;
    ++common;
  }
  return common;
}

}  // namespace

void BlockTrace::add(std::string_view log) {
  while (!log.empty() && !is_full()) {
    const std::size_t end = log.find('\n');
    const std::string_view piece = log.substr(0, end);
    if (partial_.size() + piece.size() <= kLineMax) partial_ += piece;
    if (end == std::string_view::npos) return;
    add_line(std::exchange(partial_, {}));
    log.remove_prefix(end + 1);
  }
}

void BlockTrace::add_line(std::string_view line) {
  const auto address = address_of(line);
  if (!address) return;
  if (!first_) first_ = address;
  blocks_.push_back(*address - *first_);
}

void Lengths::add(std::uint64_t length) {
  if (length == 0) return;
  const auto power = static_cast<std::size_t>(std::bit_width(length)) - 1;
  ++by_power[std::min(power, by_power.size() - 1)];
  ++count;
  sum += length;
  longest = std::max(longest, length);
}

std::uint64_t Lengths::median() const {
  std::uint64_t passed = 0;
  for (std::size_t i = 0; i < by_power.size(); ++i) {
    passed += by_power[i];
    if (passed * 2 >= count && count > 0) return (std::uint64_t{2} << i) - 1;
  }
  return 0;
}

ExecutionLikeness compare(const BlockTrace& a, const BlockTrace& b) {
  const Blocks& left = a.blocks();
  const Blocks& right = b.blocks();
  const auto left_hashes = meeting_hashes(left);
  const auto right_hashes = meeting_hashes(right);
  ExecutionLikeness found{.blocks = left.size() + right.size(),
                          .in_step = 0,
                          .in_any_order = 2 * common_blocks(left, right),
                          .equal_runs = {},
                          .bursts = {}};
  std::size_t i = 0;
  std::size_t j = 0;
  while (i < left.size() && j < right.size()) {
    std::size_t run = 0;
    while (i + run < left.size() && j + run < right.size() && left[i + run] == right[j + run]) {
      ++run;
    }
    found.in_step += 2 * run;
    found.equal_runs.add(run);
    i += run, j += run;
    if (i == left.size() || j == right.size()) break;
    const Step step = find_meeting(from(left_hashes, i), from(right_hashes, j));
    const std::size_t skipped_left = std::min(step.a, left.size() - i);
    const std::size_t skipped_right = std::min(step.b, right.size() - j);
    found.bursts.add(std::max(skipped_left, skipped_right));
    i += skipped_left, j += skipped_right;
  }
  return found;
}

}  // namespace samepage::fingerprinter
