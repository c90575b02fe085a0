#include "imagestore/commit.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "core/check.h"
#include "imagestore/manifest.h"
#include "imagestore/page_packer.h"

namespace samepage::imagestore {
namespace {

// Another commit to the same image that comes first costs one more round.
constexpr std::uint64_t kRebasesMax = 1000;
constexpr std::size_t kConflictsNamed = 8;

std::string describe(const std::vector<PageRange>& ranges) {
  std::string text;
  for (std::size_t i = 0; i < std::min(ranges.size(), kConflictsNamed); ++i) {
    const auto& [first, count] = ranges[i];
    text += (i > 0 ? ", " : "") + std::to_string(first);
    if (count > 1) text += "-" + std::to_string(first + count - 1);
  }
  if (ranges.size() > kConflictsNamed) text += ", ...";
  return text;
}

}  // namespace

class Commit::Impl {
 public:
  Impl(ImageStore& store, CommitOptions options, Manifest base)
      : store_(store),
        options_(std::move(options)),
        base_(std::move(base)),
        packer_(store, nullptr) {}
  ~Impl() {
    // What cannot be taken back is mended by the next writer.
    if (auto discarded = store_.discard(); !discarded) return;
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  Result<void> put(std::uint64_t first_page, std::span<const std::byte> pages);
  Result<void> put_zeros(const PageRange& pages);
  Result<CommitReport> finish(const Clock& clock);

  std::vector<PageRange> conflicts_;

 private:
  Result<void> expect_inside(const PageRange& pages) const;
  Result<void> find_conflicts(Manifest& head, std::uint64_t number);
  Result<ImageVersion> build(const ImageVersion& onto, Manifest& head);

  ImageStore& store_;
  CommitOptions options_;
  Manifest base_;
  PagePacker packer_;
  std::map<std::uint64_t, std::optional<PageDigest>> changes_;  ///< None: zeros.
  CommitReport report_;
};

Result<void> Commit::Impl::expect_inside(const PageRange& pages) const {
  const std::uint64_t end = pages_in(options_.size_bytes);
  if (pages.first <= end && pages.count <= end - pages.first) return {};
  return fail(Errc::kInvalid, "pages beyond the end of the image");
}

Result<void> Commit::Impl::put(std::uint64_t first_page, std::span<const std::byte> pages) {
  if (pages.size() % kPageSize != 0) return fail(Errc::kInvalid, "not whole pages");
  TRY(expect_inside({.first = first_page, .count = pages.size() / kPageSize}));
  for (std::uint64_t number = first_page; !pages.empty(); ++number) {
    const PageView page = pages.first<kPageSize>();
    pages = pages.subspan(kPageSize);
    auto& change = changes_[number];
    change.reset();
    if (is_zero(page)) continue;
    change = digest_page(page, store_.keys().pages);
    TRY(packer_.add(*change, page));
  }
  return {};
}

Result<void> Commit::Impl::put_zeros(const PageRange& pages) {
  TRY(expect_inside(pages));
  for (std::uint64_t page = pages.first; page < pages.first + pages.count; ++page) {
    changes_[page] = std::nullopt;
  }
  return {};
}

/// Pages that were changed here and, since the base, by the commits that lead to `head`.
Result<void> Commit::Impl::find_conflicts(Manifest& head, std::uint64_t number) {
  conflicts_.clear();
  const auto compare = [this](std::uint64_t page, const std::optional<PageRef>&,
                              const std::optional<PageRef>& theirs) -> Result<void> {
    const auto ours = changes_.find(page);
    if (ours == changes_.end()) return {};
    const bool equal = theirs ? ours->second == theirs->digest : !ours->second;
    if (!equal) add_page(conflicts_, page);
    return {};
  };
  TRY(Manifest::diff(base_, head, compare));
  if (conflicts_.empty()) return {};
  return fail(Errc::kInvalid, "image " + options_.image + ": version " + std::to_string(number) +
                                  " has other content in pages " + describe(conflicts_) +
                                  ", which this commit changes too; nothing was committed");
}

Result<ImageVersion> Commit::Impl::build(const ImageVersion& onto, Manifest& head) {
  const std::uint64_t size_bytes = std::max(options_.size_bytes, head.size_bytes());
  ManifestBuilder builder = TRY(ManifestBuilder::on_top_of(head, size_bytes));
  std::int64_t data_pages = static_cast<std::int64_t>(onto.data_bytes / kPageSize);
  for (const auto& [page, digest] : changes_) {
    const bool had_data = page < head.pages() && TRY(head.find(page)).has_value();
    data_pages += (digest ? 1 : 0) - (had_data ? 1 : 0);
    std::optional<PageRef> ref;
    if (digest) ref = PageRef{.digest = *digest, .place = packer_.place(*digest).value()};
    TRY(builder.set(page, ref));
  }
  ImageVersion version;
  version.id = TRY(builder.finish());
  version.size_bytes = size_bytes;
  version.data_bytes =
      static_cast<std::uint64_t>(std::max<std::int64_t>(data_pages, 0)) * kPageSize;
  version.new_bytes = packer_.new_pages() * kPageSize;
  version.stored_bytes = packer_.stored_bytes() + builder.stored_bytes();
  version.source_format = "commit";
  return version;
}

Result<CommitReport> Commit::Impl::finish(const Clock& clock) {
  TRY(packer_.finish());
  report_.changed_pages = changes_.size();
  report_.zero_pages = static_cast<std::uint64_t>(std::count_if(
      changes_.begin(), changes_.end(), [](const auto& change) { return !change.second; }));
  const std::uint64_t data_pages = report_.changed_pages - report_.zero_pages;
  report_.duplicate_pages = data_pages - std::min(data_pages, packer_.new_pages());
  for (; report_.rebases <= kRebasesMax; ++report_.rebases) {
    const Image image = TRY(store_.find_image(options_.image));
    Manifest head = TRY(Manifest::open(store_.origin(), store_.keys(), image.head.id));
    if (image.head.id != options_.base) TRY(find_conflicts(head, image.head.number));
    report_.version = TRY(build(image.head, head));
    if (report_.version.id == image.head.id) {
      report_.version = image.head;
      report_.number = image.head.number;
      return report_;
    }
    report_.version.imported_at = std::chrono::floor<std::chrono::seconds>(clock.today());
    TRY(store_.commit());
    if (options_.before_publish) TRY(options_.before_publish(report_.version.id));
    const auto number =
        TRY(store_.catalog().advance(options_.image, image.head.number, report_.version));
    if (number) {
      report_.number = *number;
      report_.version.number = *number;
      return report_;
    }
  }
  return fail(Errc::kUnavailable,
              "image " + options_.image + ": too many commits at the same time; try again");
}

Commit::Commit(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Commit::~Commit() = default;

Result<std::unique_ptr<Commit>> Commit::begin(ImageStore& store, const CommitOptions& options) {
  const Image image = TRY(store.find_image(options.image));
  if (image.head.id != options.base) {
    const auto versions = TRY(store.catalog().versions(options.image));
    const bool known = std::any_of(versions.begin(), versions.end(),
                                   [&](const auto& version) { return version.id == options.base; });
    if (!known) {
      return fail(Errc::kInvalid, "image " + options.image + " has no version " +
                                      to_hex(options.base) + " to commit on");
    }
  }
  Manifest base = TRY(Manifest::open(store.origin(), store.keys(), options.base));
  CommitOptions wanted = options;
  if (wanted.size_bytes == 0) wanted.size_bytes = base.size_bytes();
  if (wanted.size_bytes < base.size_bytes()) {
    return fail(Errc::kInvalid, "an image does not shrink");
  }
  if (wanted.size_bytes > kImageBytesMax) return fail(Errc::kInvalid, "an image beyond 1 PiB");
  return std::unique_ptr<Commit>(
      new Commit(std::make_unique<Impl>(store, std::move(wanted), std::move(base))));
}

Result<void> Commit::put(std::uint64_t first_page, std::span<const std::byte> pages) {
  return impl_->put(first_page, pages);
}

Result<void> Commit::put_zeros(const PageRange& pages) {
  return impl_->put_zeros(pages);
}

Result<CommitReport> Commit::finish(const Clock& clock) {
  return impl_->finish(clock);
}

const std::vector<PageRange>& Commit::conflicts() const {
  return impl_->conflicts_;
}

}  // namespace samepage::imagestore
