#include "imagestore/page_packer.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace samepage::imagestore {
namespace {

constexpr std::size_t kPackingMax = 16;  // Extents that are being compressed.

}  // namespace

void PagePacker::lay_out(std::span<const PageDigest> order) {
  while (!order.empty()) {
    const auto digests = order.first(std::min(order.size(), extent_pages_));
    order = order.subspan(digests.size());
    const ObjectName name = extent_name(digests, store_.keys());
    std::uint32_t slot = 0;
    for (const PageDigest& digest : digests) {
      layout_.emplace(digest, PagePlace{.extent = name, .slot = slot++});
    }
    planned_.emplace(name,
                     Planned{.extent = {.digests = {digests.begin(), digests.end()}, .pages = {}},
                             .missing = digests.size()});
  }
}

Result<void> PagePacker::add(const PageDigest& digest, PageView page) {
  if (places_.contains(digest)) return {};
  if (const auto planned = layout_.find(digest); planned != layout_.end()) {
    const PagePlace place = planned->second;
    layout_.erase(planned);
    places_.emplace(digest, place);
    ++new_pages_;
    return add_planned(place, page);
  }
  if (const auto known = TRY(store_.pages().find(digest))) {
    TRY(store_.rely_on(known->extent));
    places_.emplace(digest, known);
    return {};
  }
  places_.emplace(digest, std::nullopt);
  ++new_pages_;
  open_.digests.push_back(digest);
  open_.pages.insert(open_.pages.end(), page.begin(), page.end());
  if (open_.digests.size() < extent_pages_) return {};
  pack(std::exchange(open_, {}));
  return store_packed(kPackingMax);
}

Result<void> PagePacker::add_planned(const PagePlace& place, PageView page) {
  Planned& planned = planned_.at(place.extent);
  auto& pages = planned.extent.pages;
  pages.resize(planned.extent.digests.size() * kPageSize);
  std::memcpy(&pages[place.slot * kPageSize], page.data(), kPageSize);
  if (--planned.missing > 0) return {};
  pack(std::move(planned.extent));
  planned_.erase(place.extent);
  return store_packed(kPackingMax);
}

std::optional<PagePlace> PagePacker::place(const PageDigest& digest) const {
  const auto found = places_.find(digest);
  return found == places_.end() ? std::nullopt : found->second;
}

void PagePacker::pack(Extent extent) {
  ++extents_;
  const ObjectName name = extent_name(extent.digests, store_.keys());
  std::uint32_t slot = 0;
  for (const PageDigest& digest : extent.digests) {
    places_[digest] = PagePlace{.extent = name, .slot = slot++};
  }
  auto job = [keys = store_.keys(), taken = std::move(extent)]() mutable {
    return Packed{.encoded = encode_extent(taken, keys), .digests = std::move(taken.digests)};
  };
  packing_.push_back(workers_ != nullptr ? workers_->submit(std::move(job))
                                         : std::async(std::launch::deferred, std::move(job)));
}

/// Stores the oldest extents until `left` are being compressed.
Result<void> PagePacker::store_packed(std::size_t left) {
  while (packing_.size() > left) {
    const Packed packed = packing_.front().get();
    packing_.pop_front();
    TRY(store_.origin().put(packed.encoded.name, packed.encoded.bytes));
    store_.pages().add(packed.encoded.name, packed.digests);
    stored_bytes_ += packed.encoded.bytes.size();
  }
  return {};
}

Result<void> PagePacker::flush() {
  if (!open_.digests.empty()) pack(std::exchange(open_, {}));
  return store_packed(0);
}

Result<void> PagePacker::finish() {
  TRY(flush());
  if (planned_.empty()) return {};
  return fail(Errc::kIo, "the image changed while it was read");
}

void PagePacker::forget_places() {
  // Extents with gaps are in no index yet.
  std::erase_if(places_, [this](const auto& page) {
    return page.second && !planned_.contains(page.second->extent);
  });
}

}  // namespace samepage::imagestore
