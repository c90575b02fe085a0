#include "imagestore/catalog.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/database.h"

namespace samepage::imagestore {
namespace {

constexpr std::array<std::string_view, 1> kSchema{
    "CREATE TABLE domains (name TEXT PRIMARY KEY, key_id INTEGER NOT NULL);"
    "CREATE TABLE images (name TEXT PRIMARY KEY, domain TEXT NOT NULL REFERENCES domains(name),"
    "  head INTEGER NOT NULL);"
    "CREATE TABLE versions (image TEXT NOT NULL REFERENCES images(name), number INTEGER NOT NULL,"
    "  id BLOB NOT NULL, size_bytes INTEGER NOT NULL, data_bytes INTEGER NOT NULL,"
    "  new_bytes INTEGER NOT NULL, stored_bytes INTEGER NOT NULL, source_format TEXT NOT NULL,"
    "  imported_at INTEGER NOT NULL, PRIMARY KEY (image, number));"};

constexpr std::string_view kVersionColumns =
    "v.id, v.size_bytes, v.data_bytes, v.new_bytes, v.stored_bytes, v.source_format, v.imported_at";

Result<ImageVersion> read_version(const Statement& row) {
  ImageVersion version;
  const auto id = row.blob(0);
  if (id.size() != version.id.bytes.size()) {
    return fail(Errc::kCorrupt, "a version's name in the catalog");
  }
  std::copy(id.begin(), id.end(), version.id.bytes.begin());
  version.size_bytes = static_cast<std::uint64_t>(row.integer(1));
  version.data_bytes = static_cast<std::uint64_t>(row.integer(2));
  version.new_bytes = static_cast<std::uint64_t>(row.integer(3));
  version.stored_bytes = static_cast<std::uint64_t>(row.integer(4));
  version.source_format = row.text(5);
  version.imported_at = std::chrono::sys_seconds(std::chrono::seconds(row.integer(6)));
  return version;
}

Result<Image> read_image(const Statement& row) {
  Image image;
  image.head = TRY(read_version(row));
  image.name = row.text(7);
  image.sharing_domain = row.text(8);
  image.versions = static_cast<std::uint64_t>(row.integer(9));
  return image;
}

std::string images_query(std::string_view condition) {
  return "SELECT " + std::string(kVersionColumns) +
         ", i.name, i.domain, (SELECT count(*) FROM versions WHERE image = i.name)"
         " FROM images i JOIN versions v ON v.image = i.name AND v.number = i.head " +
         std::string(condition);
}

}  // namespace

class Catalog::Impl {
 public:
  explicit Impl(Database database) : database_(std::move(database)) {}

  Database database_;
};

Catalog::Catalog(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Catalog::~Catalog() = default;

Result<std::unique_ptr<Catalog>> Catalog::open(const std::string& path) {
  Database database = TRY(Database::open({.path = path}));
  TRY(database.migrate(kSchema));
  return std::unique_ptr<Catalog>(new Catalog(std::make_unique<Impl>(std::move(database))));
}

Result<void> Catalog::expect_domain(std::string_view domain, std::uint64_t key_id) {
  auto known = TRY(impl_->database_.prepare("SELECT key_id FROM domains WHERE name = ?"));
  TRY(known.bind({domain}));
  if (!TRY(known.step()) || known.integer(0) == static_cast<std::int64_t>(key_id)) return {};
  return fail(Errc::kInvalid, "the store knows sharing domain " + std::string(domain) +
                                  " by another key; give the key that its images were imported "
                                  "with");
}

Result<void> Catalog::remember_domain(std::string_view domain, std::uint64_t key_id) {
  auto insert =
      TRY(impl_->database_.prepare("INSERT OR IGNORE INTO domains (name, key_id) VALUES (?, ?)"));
  TRY(insert.bind({domain, static_cast<std::int64_t>(key_id)}));
  return insert.run();
}

Result<void> Catalog::add(std::string_view name, std::string_view sharing_domain,
                          const ImageVersion& version) {
  TRY(check_image_name(name));
  Transaction transaction = TRY(impl_->database_.begin());
  {
    auto known = TRY(impl_->database_.prepare("SELECT 1 FROM images WHERE name = ?"));
    TRY(known.bind({name}));
    if (TRY(known.step())) {
      return fail(Errc::kInvalid,
                  "image " + std::string(name) + " exists already; choose another name");
    }
    auto image =
        TRY(impl_->database_.prepare("INSERT INTO images (name, domain, head) VALUES (?, ?, 1)"));
    TRY(image.bind({name, sharing_domain}));
    TRY(image.run());
    auto row = TRY(impl_->database_.prepare(
        "INSERT INTO versions (image, number, id, size_bytes, data_bytes, new_bytes, stored_bytes,"
        " source_format, imported_at) VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?)"));
    TRY(row.bind({name, std::span<const std::byte>(version.id.bytes),
                  static_cast<std::int64_t>(version.size_bytes),
                  static_cast<std::int64_t>(version.data_bytes),
                  static_cast<std::int64_t>(version.new_bytes),
                  static_cast<std::int64_t>(version.stored_bytes),
                  std::string_view(version.source_format),
                  std::int64_t{version.imported_at.time_since_epoch().count()}}));
    TRY(row.run());
  }
  return transaction.commit();
}

Result<Image> Catalog::find(std::string_view name) {
  auto query = TRY(impl_->database_.prepare(images_query("WHERE i.name = ?")));
  TRY(query.bind({name}));
  if (TRY(query.step())) return read_image(query);
  return fail(Errc::kNotFound,
              "no image named " + std::string(name) + "; `samepage image list` lists them");
}

Result<std::vector<Image>> Catalog::list() {
  auto query = TRY(impl_->database_.prepare(images_query("ORDER BY i.name")));
  std::vector<Image> images;
  while (TRY(query.step())) images.push_back(TRY(read_image(query)));
  return images;
}

Result<std::vector<ImageVersion>> Catalog::versions(std::string_view name) {
  auto query = TRY(impl_->database_.prepare("SELECT " + std::string(kVersionColumns) +
                                            " FROM versions v WHERE v.image = ? ORDER BY number"));
  TRY(query.bind({name}));
  std::vector<ImageVersion> versions;
  while (TRY(query.step())) versions.push_back(TRY(read_version(query)));
  return versions;
}

Result<void> check_image_name(std::string_view name) {
  const auto alphanumeric = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  const auto allowed = [&](char c) { return alphanumeric(c) || c == '.' || c == '_' || c == '-'; };
  if (!name.empty() && name.size() <= kImageNameMax && alphanumeric(name.front()) &&
      std::all_of(name.begin(), name.end(), allowed)) {
    return {};
  }
  return fail(Errc::kInvalid,
              "an image's name is 1 to 128 letters, digits, '.', '_' and '-', and begins with a "
              "letter or digit");
}

}  // namespace samepage::imagestore
