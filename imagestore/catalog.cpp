#include "imagestore/catalog.h"

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <tuple>
#include <type_traits>
#include <utility>

#include "core/database.h"
#include "imagestore/combiner.h"

namespace samepage::imagestore {
namespace {

constexpr std::array<std::string_view, 3> kSchema{
    "CREATE TABLE domains (name TEXT PRIMARY KEY, key_id INTEGER NOT NULL);"
    "CREATE TABLE images (name TEXT PRIMARY KEY, domain TEXT NOT NULL REFERENCES domains(name),"
    "  head INTEGER NOT NULL);"
    "CREATE TABLE versions (image TEXT NOT NULL REFERENCES images(name), number INTEGER NOT NULL,"
    "  id BLOB NOT NULL, size_bytes INTEGER NOT NULL, data_bytes INTEGER NOT NULL,"
    "  new_bytes INTEGER NOT NULL, stored_bytes INTEGER NOT NULL, source_format TEXT NOT NULL,"
    "  imported_at INTEGER NOT NULL, PRIMARY KEY (image, number));",
    "ALTER TABLE images ADD COLUMN last INTEGER NOT NULL DEFAULT 1;"
    "CREATE INDEX versions_by_id ON versions (id);"
    "CREATE TABLE holds (version BLOB NOT NULL, holder TEXT NOT NULL, until INTEGER NOT NULL,"
    "  PRIMARY KEY (version, holder)) WITHOUT ROWID;",
    "CREATE TABLE traces (version BLOB PRIMARY KEY, pages INTEGER NOT NULL, body BLOB NOT NULL)"
    "  WITHOUT ROWID;"};

constexpr std::string_view kVersionColumns =
    "v.id, v.size_bytes, v.data_bytes, v.new_bytes, v.stored_bytes, v.source_format,"
    " v.imported_at, v.number";

std::int64_t seconds(std::chrono::sys_seconds time) {
  return time.time_since_epoch().count();
}

Result<VersionId> read_id(const Statement& row) {
  VersionId id;
  const auto bytes = row.blob(0);
  if (bytes.size() != id.bytes.size()) {
    return fail(Errc::kCorrupt, "a version's name in the catalog");
  }
  std::copy(bytes.begin(), bytes.end(), id.bytes.begin());
  return id;
}

Result<ImageVersion> read_version(const Statement& row) {
  ImageVersion version;
  version.id = TRY(read_id(row));
  version.size_bytes = static_cast<std::uint64_t>(row.integer(1));
  version.data_bytes = static_cast<std::uint64_t>(row.integer(2));
  version.new_bytes = static_cast<std::uint64_t>(row.integer(3));
  version.stored_bytes = static_cast<std::uint64_t>(row.integer(4));
  version.source_format = row.text(5);
  version.imported_at = std::chrono::sys_seconds(std::chrono::seconds(row.integer(6)));
  version.number = static_cast<std::uint64_t>(row.integer(7));
  return version;
}

Result<Image> read_image(const Statement& row) {
  Image image;
  image.head = TRY(read_version(row));
  image.name = row.text(8);
  image.sharing_domain = row.text(9);
  image.versions = static_cast<std::uint64_t>(row.integer(10));
  return image;
}

std::string images_query(std::string_view condition) {
  return "SELECT " + std::string(kVersionColumns) +
         ", i.name, i.domain, (SELECT count(*) FROM versions WHERE image = i.name)"
         " FROM images i JOIN versions v ON v.image = i.name AND v.number = i.head " +
         std::string(condition);
}

}  // namespace

/// A catalog's tables through one connection, inside of a transaction.
struct Catalog::Tables {
  Result<void> prepare();
  Result<void> insert_version(std::string_view name, const ImageVersion& version);
  Result<void> expect_unheld(std::string_view name, std::uint64_t number,
                             std::chrono::sys_seconds now);
  Result<Image> find(std::string_view name);
  Result<ImageVersion> version(std::string_view name, std::uint64_t number);
  Result<std::optional<std::uint64_t>> advance(std::string_view name, std::uint64_t head,
                                               const ImageVersion& version);
  Result<void> remove(std::string_view name, std::chrono::sys_seconds now);
  Result<void> hold(const VersionId& version, std::string_view holder, const Lease& lease);
  Result<void> put_trace(const VersionId& version, std::uint64_t pages,
                         std::span<const std::byte> body);

  Database database;
  // What CLONE and COMMIT run, prepared once.
  std::optional<Statement> find_image = {};
  std::optional<Statement> add_image = {};
  std::optional<Statement> add_version = {};
  std::optional<Statement> advance_head = {};
};

/// The connection that this process's threads share. What they want at the same moment is one
/// transaction: on another file system each costs many trips to the cluster, for its lock, the
/// pages that another process may have changed, the journal and the file.
class Catalog::Connection {
 public:
  struct Job {
    bool writes = false;
    std::function<Result<void>(Tables&)> work;
    Result<void> result = {};
  };

  Result<void> open(const Database::Options& options);
  Result<void> run(Job& job);

 private:
  void do_all(std::span<Job* const> jobs);
  void do_one(Job& job);

  std::mutex opening_;
  std::optional<Tables> tables_;
  bool is_flushed_by_commit_ = false;
  Combiner<Job> jobs_;
};

class Catalog::Impl {
 public:
  explicit Impl(std::shared_ptr<Connection> connection) : connection_(std::move(connection)) {}

  template <class Work>
  auto read(const Work& work) {
    return run(false, work);
  }
  template <class Work>
  auto write(const Work& work) {
    return run(true, work);
  }

 private:
  /// What the work returns, or why it could not be done.
  template <class Work>
  auto run(bool writes, const Work& work) -> std::invoke_result_t<Work, Tables&> {
    std::optional<std::invoke_result_t<Work, Tables&>> answer;
    Connection::Job job{.writes = writes, .work = [&](Tables& tables) -> Result<void> {
                          answer.emplace(work(tables));
                          if (*answer) return {};
                          return tl::unexpected(answer->error());
                        }};
    TRY(connection_->run(job));
    return *std::move(answer);
  }

  const std::shared_ptr<Connection> connection_;
};

Result<void> Catalog::Connection::open(const Database::Options& options) {
  const std::lock_guard lock(opening_);
  if (tables_) return {};
  Tables tables{.database = TRY(Database::open(options))};
  TRY(tables.prepare());
  is_flushed_by_commit_ = options.synchronous_full;
  tables_ = std::move(tables);
  return {};
}

Result<void> Catalog::Connection::run(Job& job) {
  jobs_.run(job, [this](std::span<Job* const> jobs) { do_all(jobs); });
  return std::move(job.result);
}

void Catalog::Connection::do_all(std::span<Job* const> jobs) {
  const bool writes = std::ranges::any_of(jobs, &Job::writes);
  Database& database = tables_->database;
  auto ended = database.execute(writes ? "BEGIN IMMEDIATE" : "BEGIN");
  if (ended) {
    for (Job* const job : jobs) do_one(*job);
    ended = database.execute("COMMIT");
    if (!ended) std::ignore = database.execute("ROLLBACK");
  }
  if (ended && writes && !is_flushed_by_commit_) ended = database.flush();
  if (ended) return;
  for (Job* const job : jobs) {
    if (job->result) job->result = ended;
  }
}

void Catalog::Connection::do_one(Job& job) {
  Database& database = tables_->database;
  if (!job.writes) {
    job.result = job.work(*tables_);
    return;
  }
  job.result = database.execute("SAVEPOINT job");
  if (!job.result) return;
  job.result = job.work(*tables_);
  const auto ended = database.execute(job.result ? "RELEASE job" : "ROLLBACK TO job; RELEASE job");
  if (job.result) job.result = ended;
}

Result<void> Catalog::Tables::prepare() {
  TRY(database.migrate(kSchema));
  find_image = TRY(database.prepare(images_query("WHERE i.name = ?")));
  add_image =
      TRY(database.prepare("INSERT OR IGNORE INTO images (name, domain, head) VALUES (?, ?, 1)"));
  add_version = TRY(database.prepare(
      "INSERT INTO versions (image, number, id, size_bytes, data_bytes, new_bytes, stored_bytes,"
      " source_format, imported_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"));
  advance_head =
      TRY(database.prepare("UPDATE images SET last = last + 1, head = last + 1 WHERE name = ? AND "
                           "head = ? RETURNING head"));
  return {};
}

Result<void> Catalog::Tables::insert_version(std::string_view name, const ImageVersion& version) {
  TRY(add_version->bind(
      {name, static_cast<std::int64_t>(version.number),
       std::span<const std::byte>(version.id.bytes), static_cast<std::int64_t>(version.size_bytes),
       static_cast<std::int64_t>(version.data_bytes), static_cast<std::int64_t>(version.new_bytes),
       static_cast<std::int64_t>(version.stored_bytes), std::string_view(version.source_format),
       seconds(version.imported_at)}));
  return add_version->run();
}

Catalog::Catalog(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Catalog::~Catalog() = default;

Result<std::unique_ptr<Catalog>> Catalog::open(const Database::Options& options) {
  auto connection = shared_in_process<Connection>(options.path);
  TRY(connection->open(options));
  return std::unique_ptr<Catalog>(new Catalog(std::make_unique<Impl>(std::move(connection))));
}

Result<void> Catalog::expect_domain(std::string_view domain, std::uint64_t key_id) {
  return impl_->read([&](Tables& tables) -> Result<void> {
    auto known = TRY(tables.database.prepare("SELECT key_id FROM domains WHERE name = ?"));
    TRY(known.bind({domain}));
    if (!TRY(known.step()) || known.integer(0) == static_cast<std::int64_t>(key_id)) return {};
    return fail(Errc::kInvalid, "the store knows sharing domain " + std::string(domain) +
                                    " by another key; give the key that its images were imported "
                                    "with");
  });
}

Result<void> Catalog::remember_domain(std::string_view domain, std::uint64_t key_id) {
  return impl_->write([&](Tables& tables) -> Result<void> {
    auto insert =
        TRY(tables.database.prepare("INSERT OR IGNORE INTO domains (name, key_id) VALUES (?, ?)"));
    TRY(insert.bind({domain, static_cast<std::int64_t>(key_id)}));
    return insert.run();
  });
}

Result<void> Catalog::add(std::string_view name, std::string_view sharing_domain,
                          const ImageVersion& version) {
  return impl_->write([&](Tables& tables) -> Result<void> {
    TRY(check_image_name(name));
    ImageVersion first = version;
    first.number = 1;
    TRY(tables.add_image->bind({name, sharing_domain}));
    TRY(tables.add_image->run());
    if (tables.database.rows_changed() == 0) {
      return fail(Errc::kInvalid,
                  "image " + std::string(name) + " exists already; choose another name");
    }
    TRY(tables.insert_version(name, first));
    return {};
  });
}

Result<std::optional<std::uint64_t>> Catalog::Tables::advance(std::string_view name,
                                                              std::uint64_t head,
                                                              const ImageVersion& version) {
  ImageVersion next = version;
  Statement& advance = *advance_head;
  TRY(advance.bind({name, static_cast<std::int64_t>(head)}));
  if (!TRY(advance.step())) {
    TRY(find(name));
    return std::nullopt;
  }
  next.number = static_cast<std::uint64_t>(advance.integer(0));
  TRY(advance.run());
  TRY(insert_version(name, next));
  return next.number;
}

Result<std::optional<std::uint64_t>> Catalog::advance(std::string_view name, std::uint64_t head,
                                                      const ImageVersion& version) {
  return impl_->write([&](Tables& tables) { return tables.advance(name, head, version); });
}

Result<Image> Catalog::Tables::find(std::string_view name) {
  Statement& query = *find_image;
  TRY(query.bind({name}));
  if (!TRY(query.step())) {
    return fail(Errc::kNotFound,
                "no image named " + std::string(name) + "; `samepage image list` lists them");
  }
  Image image = TRY(read_image(query));
  TRY(query.run());  // A statement in mid-query would hold on to its snapshot.
  return image;
}

Result<Image> Catalog::find(std::string_view name) {
  return impl_->read([&](Tables& tables) { return tables.find(name); });
}

Result<std::vector<Image>> Catalog::list() {
  return impl_->read([&](Tables& tables) -> Result<std::vector<Image>> {
    auto query = TRY(tables.database.prepare(images_query("ORDER BY i.name")));
    std::vector<Image> images;
    while (TRY(query.step())) images.push_back(TRY(read_image(query)));
    return images;
  });
}

Result<std::vector<ImageVersion>> Catalog::versions(std::string_view name) {
  return impl_->read([&](Tables& tables) -> Result<std::vector<ImageVersion>> {
    auto query = TRY(tables.database.prepare("SELECT " + std::string(kVersionColumns) +
                                             " FROM versions v WHERE v.image = ? ORDER BY number"));
    TRY(query.bind({name}));
    std::vector<ImageVersion> versions;
    while (TRY(query.step())) versions.push_back(TRY(read_version(query)));
    return versions;
  });
}

Result<ImageVersion> Catalog::Tables::version(std::string_view name, std::uint64_t number) {
  const Image image = TRY(find(name));
  if (number == 0) return image.head;
  auto query = TRY(database.prepare("SELECT " + std::string(kVersionColumns) +
                                    " FROM versions v WHERE image = ? AND number = ?"));
  TRY(query.bind({name, static_cast<std::int64_t>(number)}));
  if (TRY(query.step())) return read_version(query);
  return fail(Errc::kNotFound,
              "image " + std::string(name) + " has no version " + std::to_string(number));
}

Result<ImageVersion> Catalog::version(std::string_view name, std::uint64_t number) {
  return impl_->read([&](Tables& tables) { return tables.version(name, number); });
}

/// `number` 0 stands for every version. A version that another image has too may go from this one.
Result<void> Catalog::Tables::expect_unheld(std::string_view name, std::uint64_t number,
                                            std::chrono::sys_seconds now) {
  auto query = TRY(database.prepare(
      "SELECT v.number, h.holder FROM versions v JOIN holds h ON h.version = v.id"
      " WHERE v.image = ?1 AND (?2 = 0 OR v.number = ?2) AND h.until > ?3"
      " AND NOT EXISTS (SELECT 1 FROM versions o WHERE o.id = v.id AND o.image != ?1) LIMIT 1"));
  TRY(query.bind({name, static_cast<std::int64_t>(number), seconds(now)}));
  if (!TRY(query.step())) return {};
  return fail(Errc::kUnavailable, "image " + std::string(name) + ", version " +
                                      std::to_string(query.integer(0)) + " is in use by " +
                                      query.text(1));
}

Result<void> Catalog::Tables::remove(std::string_view name, std::chrono::sys_seconds now) {
  TRY(find(name));
  TRY(expect_unheld(name, 0, now));
  for (const char* sql :
       {"DELETE FROM versions WHERE image = ?", "DELETE FROM images WHERE name = ?"}) {
    auto statement = TRY(database.prepare(sql));
    TRY(statement.bind({name}));
    TRY(statement.run());
  }
  return {};
}

Result<void> Catalog::remove(std::string_view name, std::chrono::sys_seconds now) {
  return impl_->write([&](Tables& tables) { return tables.remove(name, now); });
}

Result<void> Catalog::remove_version(std::string_view name, std::uint64_t number,
                                     std::chrono::sys_seconds now) {
  return impl_->write([&](Tables& tables) -> Result<void> {
    const Image image = TRY(tables.find(name));
    TRY(tables.version(name, number));
    if (number == 0 || number == image.head.number) {
      return fail(Errc::kInvalid, "version " + std::to_string(image.head.number) +
                                      " is the head of image " + std::string(name) +
                                      ": remove the image, or commit first");
    }
    TRY(tables.expect_unheld(name, number, now));
    auto remove =
        TRY(tables.database.prepare("DELETE FROM versions WHERE image = ? AND number = ?"));
    TRY(remove.bind({name, static_cast<std::int64_t>(number)}));
    TRY(remove.run());
    return {};
  });
}

Result<void> Catalog::Tables::hold(const VersionId& version, std::string_view holder,
                                   const Lease& lease) {
  if (holder.empty() || holder.size() > kHolderMax) {
    return fail(Errc::kInvalid, "a holder's name has 1 to 256 bytes");
  }
  const std::span<const std::byte> id(version.bytes);
  {
    auto known =
        TRY(database.prepare("SELECT 1 FROM versions WHERE id = ?1 UNION ALL"
                             " SELECT 1 FROM holds WHERE version = ?1 AND"
                             " until > ?2"));
    TRY(known.bind({id, seconds(lease.from)}));
    if (!TRY(known.step())) return fail(Errc::kNotFound, "no such version in the catalog");
    auto hold = TRY(
        database.prepare("INSERT OR REPLACE INTO holds (version, holder, until) VALUES (?, ?, ?)"));
    TRY(hold.bind({id, holder, seconds(lease.from + lease.lasts)}));
    TRY(hold.run());
  }
  return {};
}

Result<void> Catalog::hold(const VersionId& version, std::string_view holder, const Lease& lease) {
  return impl_->write([&](Tables& tables) { return tables.hold(version, holder, lease); });
}

Result<void> Catalog::release(const VersionId& version, std::string_view holder) {
  return impl_->write([&](Tables& tables) -> Result<void> {
    auto release =
        TRY(tables.database.prepare("DELETE FROM holds WHERE version = ? AND holder = ?"));
    TRY(release.bind({std::span<const std::byte>(version.bytes), holder}));
    TRY(release.run());
    return {};
  });
}

Result<std::vector<std::string>> Catalog::holders(const VersionId& version,
                                                  std::chrono::sys_seconds now) {
  return impl_->read([&](Tables& tables) -> Result<std::vector<std::string>> {
    auto query = TRY(tables.database.prepare(
        "SELECT holder FROM holds WHERE version = ? AND until > ? ORDER BY holder"));
    TRY(query.bind({std::span<const std::byte>(version.bytes), seconds(now)}));
    std::vector<std::string> holders;
    while (TRY(query.step())) holders.push_back(query.text(0));
    return holders;
  });
}

Result<void> Catalog::Tables::put_trace(const VersionId& version, std::uint64_t pages,
                                        std::span<const std::byte> body) {
  {
    auto put = TRY(database.prepare(
        "INSERT INTO traces (version, pages, body) VALUES (?, ?, ?) ON CONFLICT (version)"
        " DO UPDATE SET pages = excluded.pages, body = excluded.body"
        " WHERE excluded.pages > traces.pages"));
    TRY(put.bind(
        {std::span<const std::byte>(version.bytes), static_cast<std::int64_t>(pages), body}));
    TRY(put.run());
    TRY(
        database.execute("DELETE FROM traces WHERE version NOT IN"
                         " (SELECT id FROM versions UNION SELECT version FROM holds)"));
  }
  return {};
}

Result<void> Catalog::put_trace(const VersionId& version, std::uint64_t pages,
                                std::span<const std::byte> body) {
  return impl_->write([&](Tables& tables) { return tables.put_trace(version, pages, body); });
}

Result<std::optional<std::vector<std::byte>>> Catalog::trace(const VersionId& version,
                                                             std::uint64_t pages_above) {
  return impl_->read([&](Tables& tables) -> Result<std::optional<std::vector<std::byte>>> {
    auto query =
        TRY(tables.database.prepare("SELECT body FROM traces WHERE version = ? AND pages > ?"));
    TRY(query.bind(
        {std::span<const std::byte>(version.bytes), static_cast<std::int64_t>(pages_above)}));
    if (!TRY(query.step())) return std::nullopt;
    return query.blob(0);
  });
}

Result<std::vector<VersionId>> Catalog::traced_versions(std::string_view image) {
  return impl_->read([&](Tables& tables) -> Result<std::vector<VersionId>> {
    auto query = TRY(tables.database.prepare(
        "SELECT v.id FROM versions v JOIN traces t ON t.version = v.id"
        " ORDER BY v.image = ? DESC, v.imported_at DESC, v.number DESC LIMIT 16"));
    TRY(query.bind({image}));
    std::vector<VersionId> versions;
    while (TRY(query.step())) versions.push_back(TRY(read_id(query)));
    return versions;
  });
}

Result<std::vector<VersionId>> Catalog::roots(std::chrono::sys_seconds now) {
  return impl_->read([&](Tables& tables) -> Result<std::vector<VersionId>> {
    auto query = TRY(tables.database.prepare(
        "SELECT id FROM versions UNION SELECT version FROM holds WHERE until > ?"));
    TRY(query.bind({seconds(now)}));
    std::vector<VersionId> roots;
    while (TRY(query.step())) roots.push_back(TRY(read_id(query)));
    return roots;
  });
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
