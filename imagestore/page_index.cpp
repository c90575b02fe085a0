#include "imagestore/page_index.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/database.h"

namespace samepage::imagestore {
namespace {

constexpr std::array<std::string_view, 1> kSchema{
    "CREATE TABLE extents (id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE);"
    "CREATE TABLE pages (digest BLOB PRIMARY KEY, extent INTEGER NOT NULL, slot INTEGER NOT NULL)"
    "  WITHOUT ROWID;"};

std::span<const std::byte> octets(const PageDigest& digest) {
  return digest.bytes;
}

}  // namespace

class PageIndex::Impl {
 public:
  explicit Impl(Database database) : database_(std::move(database)) {}

  Result<void> prepare() {
    TRY(database_.migrate(kSchema));
    // Digests are random, so every page of the index is as likely to be next: keep many at hand.
    TRY(database_.execute("PRAGMA cache_size = -262144"));
    find_ = TRY(database_.prepare(
        "SELECT extents.name, pages.slot FROM pages JOIN extents ON extents.id = pages.extent"
        " WHERE pages.digest = ?"));
    contains_ = TRY(database_.prepare("SELECT 1 FROM pages WHERE digest = ?"));
    add_extent_ = TRY(database_.prepare("INSERT INTO extents (name) VALUES (?)"));
    knows_extent_ = TRY(database_.prepare("SELECT 1 FROM extents WHERE name = ?"));
    add_page_ = TRY(
        database_.prepare("INSERT OR IGNORE INTO pages (digest, extent, slot) VALUES (?, ?, ?)"));
    return {};
  }

  Database database_;
  std::optional<Statement> find_;
  std::optional<Statement> contains_;
  std::optional<Statement> add_extent_;
  std::optional<Statement> knows_extent_;
  std::optional<Statement> add_page_;
  std::optional<Transaction> transaction_;
};

PageIndex::PageIndex(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PageIndex::~PageIndex() = default;

Result<std::unique_ptr<PageIndex>> PageIndex::open(const std::string& path) {
  auto impl = std::make_unique<Impl>(TRY(Database::open({.path = path})));
  TRY(impl->prepare());
  return std::unique_ptr<PageIndex>(new PageIndex(std::move(impl)));
}

namespace {

/// Whether a query about one name has a row. Steps to the end: a statement in mid-query would hold
/// on to its snapshot.
Result<bool> has_row(Statement& query, const PageDigest& name) {
  TRY(query.bind({octets(name)}));
  const bool found = TRY(query.step());
  if (found) TRY(query.step());
  return found;
}

}  // namespace

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

Result<bool> PageIndex::contains(const PageDigest& digest) {
  return has_row(*impl_->contains_, digest);
}

Result<bool> PageIndex::knows_extent(const ObjectName& extent) {
  return has_row(*impl_->knows_extent_, extent);
}

Result<void> PageIndex::add(const ObjectName& extent, std::span<const PageDigest> digests) {
  if (TRY(knows_extent(extent))) return {};
  if (!impl_->transaction_) impl_->transaction_.emplace(TRY(impl_->database_.begin()));
  TRY(impl_->add_extent_->bind({octets(extent)}));
  TRY(impl_->add_extent_->run());
  const std::int64_t id = impl_->database_.last_insert_id();
  std::int64_t slot = 0;
  for (const PageDigest& digest : digests) {
    TRY(impl_->add_page_->bind({octets(digest), id, slot}));
    TRY(impl_->add_page_->run());
    ++slot;
  }
  return {};
}

Result<std::uint64_t> PageIndex::extents() {
  auto query = TRY(impl_->database_.prepare("SELECT count(*) FROM extents"));
  TRY(query.step());
  return static_cast<std::uint64_t>(query.integer(0));
}

Result<void> PageIndex::commit() {
  if (!impl_->transaction_) return {};
  TRY(impl_->transaction_->commit());
  impl_->transaction_.reset();
  return {};
}

void PageIndex::discard() {
  impl_->transaction_.reset();
}

}  // namespace samepage::imagestore
