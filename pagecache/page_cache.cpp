#include "pagecache/page_cache.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/mutex.h"
#include "pagecache/page_index.h"
#include "pagecache/source_table.h"

namespace samepage::pagecache {
namespace {

using fingerprinter::BloomFilter;
using fingerprinter::ScannedPage;

constexpr double kFalsePositiveRate = 0.01;

/// How many pages one read joins: their buffer stays in a core's own cache.
constexpr std::size_t kPagesPerRead = 64;

/// A page of one source that is to be copied somewhere, when it still is what it was.
struct PlaceRead {
  Place place;
  std::byte* to = nullptr;
  std::size_t number = 0;  ///< The caller's.
};

bool by_place(const PlaceRead& one, const PlaceRead& other) {
  return std::pair(one.place.slot, one.place.page) < std::pair(other.place.slot, other.place.page);
}

/// Reads places of one source, rising and different, through a buffer of its own, and hands each
/// page to `take` where it was read.
class JoinedReads {
 public:
  template <class Take>
  void read(PageSource& source, std::span<const PlaceRead> reads, const Take& take) {
    buffer_.resize(reads.size() * kPageSize);
    pages_.clear();
    for (const PlaceRead& read : reads) pages_.push_back(read.place.page);
    const bool all = source.read_many(pages_, buffer_).has_value();
    for (std::size_t i = 0; i < reads.size(); ++i) {
      const PageBuffer page{buffer_.data() + i * kPageSize, kPageSize};
      if (all || source.read(pages_[i], page)) take(reads[i], page);
    }
  }

 private:
  std::vector<std::byte> buffer_;
  std::vector<std::uint64_t> pages_;
};

/// How many of the first reads one joined read takes: of one source, each page once.
std::size_t joined(std::span<const PlaceRead> reads) {
  std::size_t count = 1;
  while (count < reads.size() && count < kPagesPerRead &&
         reads[count].place.slot == reads[0].place.slot &&
         reads[count].place.page != reads[count - 1].place.page) {
    ++count;
  }
  return count;
}

}  // namespace

PageCheck check_of(PageHash hash) {
  return static_cast<PageCheck>(std::max<std::uint64_t>(1, hash.value >> 48U));
}

class PageCache::Impl {
 public:
  Impl(const Options& options, const SharingDomain& domain)
      : options_(options), seed_(domain.seed), key_(domain.key) {}

  SourceId add(std::unique_ptr<PageSource> source, std::span<const ScannedPage> pages) {
    const MutexLock lock(change_mutex_);
    CHECK(last_id_ < std::numeric_limits<std::uint32_t>::max());
    const SourceId id{++last_id_};
    const std::uint32_t slot = sources_.put(id, std::move(source), checks_of(pages));
    for (const ScannedPage& page : pages) {
      if (size_ == options_.pages_max) break;
      if (index_.insert(page.hash, {slot, page.page})) ++size_;
    }
    slot_by_id_.emplace(id, slot);
    return id;
  }

  void remove(SourceId id) {
    const MutexLock lock(change_mutex_);
    const auto found = slot_by_id_.find(id);
    if (found == slot_by_id_.end()) return;
    size_ -= index_.erase(found->second);
    sources_.drop(found->second);
    slot_by_id_.erase(found);
  }

  bool find(const PageDigest& digest, PageHash hash, PageBuffer page) const {
    std::array<Place, PageIndex::kPlacesMax> places;
    const std::size_t count = index_.find(hash, places);
    for (const Place& place : std::span(places).first(count)) {
      const SourceTable::Entry entry = sources_.get(place.slot);
      if (entry.source == nullptr || !entry.source->read(place.page, page)) continue;
      if (digest_page(page, key_) == digest) return true;
    }
    return false;
  }

  /// The places of a hash are tried in turns: first one for every page, then the next for those
  /// that were not found there.
  void find_many(std::span<WantedPage> wanted) const {
    JoinedReads joined_reads;
    for (std::size_t turn = 0; turn < PageIndex::kPlacesMax; ++turn) {
      std::vector<PlaceRead> reads;
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        if (wanted[i].found) continue;
        if (const auto place = place_of(wanted[i], turn)) {
          reads.push_back({.place = *place, .to = wanted[i].to.data(), .number = i});
        }
      }
      if (reads.empty()) return;
      std::ranges::sort(reads, by_place);
      for (std::span<const PlaceRead> rest(reads); !rest.empty();) {
        const std::size_t count = joined(rest);
        take_found(rest.first(count), wanted, joined_reads);
        rest = rest.subspan(count);
      }
    }
  }

  void read_placed(SourceId id, std::span<PlacedPage> pages) const {
    const auto slot = slot_of(id);
    if (!slot) return;
    const SourceTable::Entry entry = sources_.get(*slot);
    if (entry.source == nullptr || entry.id != id) return;
    std::vector<PlaceRead> reads;
    for (std::size_t i = 0; i < pages.size(); ++i) {
      if (pages[i].page >= entry.checks->size()) continue;
      reads.push_back({.place = {*slot, pages[i].page}, .to = pages[i].to.data(), .number = i});
    }
    std::ranges::sort(reads, by_place);
    JoinedReads joined_reads;
    for (std::span<const PlaceRead> rest(reads); !rest.empty();) {
      const std::size_t count = joined(rest);
      joined_reads.read(*entry.source, rest.first(count),
                        [&](const PlaceRead& read, PageView page) {
                          if (check_of(hash_page(page, seed_)) != (*entry.checks)[read.place.page])
                            return;
                          std::ranges::copy(page, read.to);
                          pages[read.number].found = true;
                        });
      rest = rest.subspan(count);
    }
  }

  std::vector<PageCheck> checks(SourceId id) const {
    const auto slot = slot_of(id);
    if (!slot) return {};
    const SourceTable::Entry entry = sources_.get(*slot);
    return entry.source != nullptr && entry.id == id ? *entry.checks : std::vector<PageCheck>();
  }

  BloomFilter filter() const {
    BloomFilter filter =
        BloomFilter::sized_for(size_, kFalsePositiveRate, options_.filter_bytes_max * 8);
    index_.for_each_hash([&filter](PageHash hash) { filter.add(hash); });
    return filter;
  }

  std::size_t size() const { return size_; }

 private:
  static std::vector<PageCheck> checks_of(std::span<const ScannedPage> pages) {
    std::uint64_t end = 0;
    for (const ScannedPage& page : pages) end = std::max(end, page.page + 1);
    std::vector<PageCheck> checks(end);
    for (const ScannedPage& page : pages) checks[page.page] = check_of(page.hash);
    return checks;
  }

  /// The place to try in this turn; that of the page's own number comes first.
  std::optional<Place> place_of(const WantedPage& wanted, std::size_t turn) const {
    std::array<Place, PageIndex::kPlacesMax> places;
    const auto known = std::span(places).first(index_.find(wanted.hash, places));
    if (turn >= known.size()) return std::nullopt;
    std::ranges::stable_partition(known,
                                  [&](const Place& place) { return place.page == wanted.number; });
    return known[turn];
  }

  void take_found(std::span<const PlaceRead> reads, std::span<WantedPage> wanted,
                  JoinedReads& joined_reads) const {
    const SourceTable::Entry entry = sources_.get(reads[0].place.slot);
    if (entry.source == nullptr) return;
    joined_reads.read(*entry.source, reads, [&](const PlaceRead& read, PageView page) {
      WantedPage& one = wanted[read.number];
      if (hash_page(page, seed_) != one.hash) return;
      std::ranges::copy(page, read.to);
      one.found = true;
      one.source = entry.id;
      one.page = read.place.page;
    });
  }

  std::optional<std::uint32_t> slot_of(SourceId id) const {
    const MutexLock lock(change_mutex_);
    const auto found = slot_by_id_.find(id);
    if (found == slot_by_id_.end()) return std::nullopt;
    return found->second;
  }

  const Options options_;
  const HashSeed seed_;
  const DigestKey key_;
  SourceTable sources_;
  PageIndex index_;

  // One add() or remove() at a time; find() takes no part in it.
  mutable Mutex change_mutex_;
  std::map<SourceId, std::uint32_t> slot_by_id_ GUARDED_BY(change_mutex_);
  std::uint32_t last_id_ GUARDED_BY(change_mutex_) = 0;
  std::atomic<std::size_t> size_ = 0;
};

PageCache::PageCache(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PageCache::~PageCache() = default;

Result<std::unique_ptr<PageCache>> PageCache::create(const Options& options,
                                                     const SharingDomain& domain) {
  if (options.pages_max == 0) return fail(Errc::kInvalid, "pages_max must be at least 1");
  return std::unique_ptr<PageCache>(new PageCache(std::make_unique<Impl>(options, domain)));
}

SourceId PageCache::add(std::unique_ptr<PageSource> source, std::span<const ScannedPage> pages) {
  CHECK(source != nullptr);
  return impl_->add(std::move(source), pages);
}

void PageCache::remove(SourceId source) {
  impl_->remove(source);
}

Result<void> PageCache::find(const PageDigest& digest, PageHash hash, PageBuffer page) {
  if (impl_->find(digest, hash, page)) return {};
  return fail(Errc::kNotFound, "no place on this host holds page " + to_hex(digest));
}

void PageCache::find_many(std::span<WantedPage> pages) {
  impl_->find_many(pages);
}

void PageCache::read_placed(SourceId source, std::span<PlacedPage> pages) {
  impl_->read_placed(source, pages);
}

std::vector<PageCheck> PageCache::checks(SourceId source) const {
  return impl_->checks(source);
}

BloomFilter PageCache::filter() const {
  return impl_->filter();
}

std::size_t PageCache::size() const {
  return impl_->size();
}

}  // namespace samepage::pagecache
