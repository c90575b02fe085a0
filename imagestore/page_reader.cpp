#include "imagestore/page_reader.h"

#include <cstring>
#include <string>
#include <utility>

#include "core/check.h"

namespace samepage::imagestore {

PageReader::PageReader(ImageStore& store, std::size_t extents_max)
    : store_(store), extents_max_(extents_max) {
  CHECK(extents_max > 0);
}

Result<void> PageReader::read(const PageRef& ref, PageBuffer page) {
  const auto extent = load(ref.place.extent);
  if (!extent) return tl::unexpected(extent.error());
  const Extent& pages = **extent;
  const std::uint32_t slot = ref.place.slot;
  if (slot < pages.digests.size() && pages.digests[slot] == ref.digest) {
    std::memcpy(page.data(), pages.page(slot).data(), kPageSize);
    // The copy is what is checked: it is what the caller uses.
    if (digest_page(page, store_.keys().pages) == ref.digest) return {};
  }
  return fail(Errc::kCorrupt, "page " + to_hex(ref.digest) + " does not match its digest (" +
                                  store_.origin().place(ref.place.extent) + ")");
}

Result<const Extent*> PageReader::load(const ObjectName& name) {
  const auto found = by_name_.find(name);
  if (found != by_name_.end()) {
    recent_.splice(recent_.begin(), recent_, found->second);
    return &recent_.front().second;
  }
  const auto bytes = store_.origin().get(name);
  if (!bytes) {
    // The manifest promised the extent: that it is missing is damage.
    const Errc code =
        bytes.error().code() == Errc::kNotFound ? Errc::kCorrupt : bytes.error().code();
    return fail(code, bytes.error().message());
  }
  auto extent = decode_extent(*bytes, store_.keys());
  if (!extent) {
    return tl::unexpected(std::move(extent).error().within(store_.origin().place(name)));
  }
  if (recent_.size() >= extents_max_) {
    by_name_.erase(recent_.back().first);
    recent_.pop_back();
  }
  recent_.emplace_front(name, *std::move(extent));
  by_name_.emplace(name, recent_.begin());
  return &recent_.front().second;
}

}  // namespace samepage::imagestore
