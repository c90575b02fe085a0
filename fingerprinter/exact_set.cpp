#include "fingerprinter/exact_set.h"

#include <algorithm>
#include <cerrno>
#include <system_error>

#include <unistd.h>

#include "core/page.h"
#include "fingerprinter/file_data.h"
#include "fingerprinter/read_fully.h"

namespace samepage::fingerprinter {
namespace {

constexpr std::uint64_t kBatchPages = 256;

/// The hashes of the pages of [first, end) that hold data and are not zeros.
Result<std::uint64_t> hash_stretch(const Fd& image, std::uint64_t first, std::uint64_t end,
                                   const PageHasher& hasher, std::vector<PageHash>& found) {
  std::uint64_t zero = 0;
  std::vector<std::byte> bytes;
  std::vector<PageHash> hashes;
  for (std::uint64_t at = first; at < end; at += hashes.size()) {
    hashes.resize(std::min(kBatchPages, end - at));
    bytes.resize(hashes.size() * kPageSize);
    TRY(read_fully(image, at * kPageSize, bytes));
    hasher.hash(bytes, hashes);
    for (std::size_t i = 0; i < hashes.size(); ++i) {
      if (is_zero(std::span(bytes).subspan(i * kPageSize).first<kPageSize>())) {
        ++zero;
      } else {
        found.push_back(hashes[i]);
      }
    }
  }
  return zero;
}

}  // namespace

Result<ExactSet> ExactSet::read(const Fd& image, HashSeed seed) {
  const off_t size = ::lseek(image.get(), 0, SEEK_END);
  if (size < 0) return fail(Errc::kIo, std::generic_category().message(errno));
  if (size == 0 || size % off_t{kPageSize} != 0) {
    return fail(Errc::kInvalid, "not a raw RAM image: its size is no multiple of 4096");
  }
  ExactSet set;
  const PageHasher hasher(seed);
  set.counts_.pages = static_cast<std::uint64_t>(size) / kPageSize;
  for (const PageRun& run : TRY(data_runs(image, {.first = 0, .count = set.counts_.pages}))) {
    set.counts_.zero +=
        TRY(hash_stretch(image, run.first, run.first + run.count, hasher, set.hashes_));
  }
  const std::size_t held = set.hashes_.size();
  std::ranges::sort(set.hashes_);
  set.hashes_.erase(std::unique(set.hashes_.begin(), set.hashes_.end()), set.hashes_.end());
  set.counts_.unique = set.hashes_.size();
  set.counts_.duplicate = held - set.hashes_.size();
  return set;
}

std::uint64_t common_pages(const ExactSet& a, const ExactSet& b) {
  std::uint64_t common = 0;
  auto left = a.hashes().begin();
  auto right = b.hashes().begin();
  while (left != a.hashes().end() && right != b.hashes().end()) {
    if (*left == *right) {
      ++common, ++left, ++right;
    } else if (*left < *right) {
      ++left;
    } else {
      ++right;
    }
  }
  return common;
}

ExactSharing exact_sharing(std::span<const ExactSet> guests) {
  ExactSharing sharing;
  std::vector<PageHash> all;
  for (const ExactSet& guest : guests) {
    sharing.zero += guest.counts().zero;
    sharing.within += guest.counts().duplicate;
    all.insert(all.end(), guest.hashes().begin(), guest.hashes().end());
  }
  if (sharing.zero > 0) --sharing.zero;  // One of them stays.
  std::ranges::sort(all);
  const auto distinct = std::unique(all.begin(), all.end());
  sharing.between = static_cast<std::uint64_t>(all.end() - distinct);
  return sharing;
}

}  // namespace samepage::fingerprinter
