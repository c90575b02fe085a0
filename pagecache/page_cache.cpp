#include "pagecache/page_cache.h"

#include <array>
#include <atomic>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/mutex.h"
#include "pagecache/page_index.h"

namespace samepage::pagecache {
namespace {

using fingerprinter::BloomFilter;
using fingerprinter::ScannedPage;

constexpr double kFalsePositiveRate = 0.01;

/// The sources by slot, the small number that index entries carry. A slot is used again only after
/// its entries are gone; a lookup that raced with that reads a wrong page, which its digest tells.
class Sources {
 public:
  /// The new source's slot.
  std::uint32_t put(std::shared_ptr<PageSource> source) {
    const MutexLock lock(mutex_);
    for (std::uint32_t slot = 0; slot < slots_.size(); ++slot) {
      if (slots_[slot] != nullptr) continue;
      slots_[slot] = std::move(source);
      return slot;
    }
    CHECK(slots_.size() < PageIndex::kSlotsMax);
    slots_.push_back(std::move(source));
    return static_cast<std::uint32_t>(slots_.size() - 1);
  }

  std::shared_ptr<PageSource> get(std::uint32_t slot) const {
    const MutexLock lock(mutex_);
    return slots_[slot];
  }

  std::shared_ptr<PageSource> drop(std::uint32_t slot) {
    const MutexLock lock(mutex_);
    return std::exchange(slots_[slot], nullptr);
  }

 private:
  mutable Mutex mutex_;
  std::vector<std::shared_ptr<PageSource>> slots_ GUARDED_BY(mutex_);
};

}  // namespace

class PageCache::Impl {
 public:
  Impl(const Options& options, const DigestKey& key) : options_(options), key_(key) {}

  SourceId add(std::unique_ptr<PageSource> source, std::span<const ScannedPage> pages) {
    const MutexLock lock(change_mutex_);
    const std::uint32_t slot = sources_.put(std::move(source));
    for (const ScannedPage& page : pages) {
      if (size_ == options_.pages_max) break;
      if (index_.insert(page.hash, {slot, page.page})) ++size_;
    }
    CHECK(last_id_ < std::numeric_limits<std::uint32_t>::max());
    slot_by_id_.emplace(++last_id_, slot);
    return {last_id_};
  }

  void remove(SourceId id) {
    const MutexLock lock(change_mutex_);
    const auto found = slot_by_id_.find(id.value);
    if (found == slot_by_id_.end()) return;
    size_ -= index_.erase(found->second);
    sources_.drop(found->second);
    slot_by_id_.erase(found);
  }

  bool find(const PageDigest& digest, PageHash hash, PageBuffer page) const {
    std::array<Place, PageIndex::kPlacesMax> places;
    const std::size_t count = index_.find(hash, places);
    for (const Place& place : std::span(places).first(count)) {
      const std::shared_ptr<PageSource> source = sources_.get(place.slot);
      if (source == nullptr || !source->read(place.page, page)) continue;
      if (digest_page(page, key_) == digest) return true;
    }
    return false;
  }

  BloomFilter filter() const {
    BloomFilter filter =
        BloomFilter::sized_for(size_, kFalsePositiveRate, options_.filter_bytes_max * 8);
    index_.for_each_hash([&filter](PageHash hash) { filter.add(hash); });
    return filter;
  }

  std::size_t size() const { return size_; }

 private:
  const Options options_;
  const DigestKey key_;
  Sources sources_;
  PageIndex index_;

  // One add() or remove() at a time; find() takes no part in it.
  Mutex change_mutex_;
  std::map<std::uint32_t, std::uint32_t> slot_by_id_ GUARDED_BY(change_mutex_);
  std::uint32_t last_id_ GUARDED_BY(change_mutex_) = 0;
  std::atomic<std::size_t> size_ = 0;
};

PageCache::PageCache(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PageCache::~PageCache() = default;

Result<std::unique_ptr<PageCache>> PageCache::create(const Options& options,
                                                     const SharingDomain& domain) {
  if (options.pages_max == 0) return fail(Errc::kInvalid, "pages_max must be at least 1");
  return std::unique_ptr<PageCache>(new PageCache(std::make_unique<Impl>(options, domain.key)));
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

BloomFilter PageCache::filter() const {
  return impl_->filter();
}

std::size_t PageCache::size() const {
  return impl_->size();
}

}  // namespace samepage::pagecache
