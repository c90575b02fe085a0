#include "imagestore/page_index.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "core/database.h"
#include "imagestore/shared_file.h"

namespace samepage::imagestore {
namespace {

constexpr std::array<std::string_view, 2> kSchema{
    "CREATE TABLE extents (id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE);"
    "CREATE TABLE pages (digest BLOB PRIMARY KEY, extent INTEGER NOT NULL, slot INTEGER NOT NULL)"
    "  WITHOUT ROWID;",
    // Ids that are never used again: pages of a forgotten extent are of no extent for ever.
    "DROP TABLE pages; DROP TABLE extents;"
    "CREATE TABLE extents (id INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB NOT NULL UNIQUE);"
    "CREATE TABLE pages (digest BLOB PRIMARY KEY, extent INTEGER NOT NULL, slot INTEGER NOT NULL)"
    "  WITHOUT ROWID;"};

constexpr std::chrono::seconds kTurnMax{30};

constexpr std::string_view kAddPage =
    "INSERT INTO pages (digest, extent, slot) VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE"
    " SET extent = excluded.extent, slot = excluded.slot"
    " WHERE NOT EXISTS (SELECT 1 FROM extents WHERE id = pages.extent)";

std::span<const std::byte> octets(const PageDigest& digest) {
  return digest.bytes;
}

}  // namespace

class PageIndex::Impl {
 public:
  Impl(Database database, std::shared_ptr<SharedFile> file)
      : file_(std::move(file)), database_(std::move(database)) {}

  Result<void> prepare() {
    TRY(database_.migrate(kSchema));
    // Digests are random, so every page of the index is as likely to be next: keep many at hand.
    TRY(database_.execute("PRAGMA cache_size = -262144"));
    find_ = TRY(database_.prepare(
        "SELECT extents.name, pages.slot FROM pages JOIN extents ON extents.id = pages.extent"
        " WHERE pages.digest = ?"));
    add_extent_ = TRY(database_.prepare("INSERT INTO extents (name) VALUES (?)"));
    knows_extent_ = TRY(database_.prepare("SELECT 1 FROM extents WHERE name = ?"));
    add_page_ = TRY(database_.prepare(kAddPage));
    return {};
  }

  struct Added {
    ObjectName extent;
    std::vector<PageDigest> digests;
  };

  Result<bool> knows_extent(const ObjectName& extent);
  Result<void> write(const Added& added);

  const std::shared_ptr<SharedFile> file_;
  Database database_;
  std::optional<Statement> find_;
  std::optional<Statement> add_extent_;
  std::optional<Statement> knows_extent_;
  std::optional<Statement> add_page_;
  std::vector<Added> added_;
};

PageIndex::PageIndex(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PageIndex::~PageIndex() = default;

Result<std::unique_ptr<PageIndex>> PageIndex::open(const std::string& path) {
  auto impl = std::make_unique<Impl>(TRY(Database::open({.path = path, .synchronous_full = false})),
                                     SharedFile::of(path));
  TRY(impl->prepare());
  return std::unique_ptr<PageIndex>(new PageIndex(std::move(impl)));
}

Result<std::optional<PagePlace>> PageIndex::find(const PageDigest& digest) {
  Statement& query = *impl_->find_;
  TRY(query.bind({octets(digest)}));
  if (!TRY(query.step())) return std::nullopt;
  PagePlace place;
  const auto name = query.blob(0);
  if (name.size() != place.extent.bytes.size()) return fail(Errc::kCorrupt, "a name in the index");
  std::copy(name.begin(), name.end(), place.extent.bytes.begin());
  place.slot = static_cast<std::uint32_t>(query.integer(1));
  TRY(query.step());
  return place;
}

Result<bool> PageIndex::Impl::knows_extent(const ObjectName& extent) {
  TRY(knows_extent_->bind({octets(extent)}));
  const bool found = TRY(knows_extent_->step());
  // A statement in mid-query would hold on to its snapshot.
  if (found) TRY(knows_extent_->step());
  return found;
}

Result<bool> PageIndex::knows_extent(const ObjectName& extent) {
  return impl_->knows_extent(extent);
}

void PageIndex::add(const ObjectName& extent, std::span<const PageDigest> digests) {
  impl_->added_.push_back({.extent = extent, .digests = {digests.begin(), digests.end()}});
}

Result<void> PageIndex::Impl::write(const Added& added) {
  if (TRY(knows_extent(added.extent))) return {};
  TRY(add_extent_->bind({octets(added.extent)}));
  TRY(add_extent_->run());
  const std::int64_t id = database_.last_insert_id();
  std::int64_t slot = 0;
  for (const PageDigest& digest : added.digests) {
    TRY(add_page_->bind({octets(digest), id, slot}));
    TRY(add_page_->run());
    ++slot;
  }
  return {};
}

Result<void> PageIndex::forget(std::span<const ObjectName> extents) {
  auto names = TRY(impl_->database_.prepare("DELETE FROM extents WHERE name = ?"));
  while (!extents.empty()) {
    // Others wait for a batch at most.
    const auto batch = extents.first(std::min<std::size_t>(extents.size(), 1024));
    extents = extents.subspan(batch.size());
    Transaction transaction = TRY(impl_->database_.begin());
    for (const ObjectName& extent : batch) {
      TRY(names.bind({octets(extent)}));
      TRY(names.run());
    }
    TRY(transaction.commit());
  }
  return {};
}

Result<std::uint64_t> PageIndex::extents() {
  auto query = TRY(impl_->database_.prepare("SELECT count(*) FROM extents"));
  TRY(query.step());
  return static_cast<std::uint64_t>(query.integer(0));
}

Result<void> PageIndex::commit() {
  if (impl_->added_.empty()) return {};
  const auto turn = TRY(impl_->file_->take_turn(kTurnMax));
  Transaction transaction = TRY(impl_->database_.begin());
  for (const Impl::Added& added : impl_->added_) TRY(impl_->write(added));
  TRY(transaction.commit());
  impl_->added_.clear();
  return {};
}

void PageIndex::discard() {
  impl_->added_.clear();
}

}  // namespace samepage::imagestore
