#include "core/database.h"

#include <cerrno>
#include <climits>
#include <system_error>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <sqlite3.h>

#include "core/check.h"
#include "core/fd.h"

namespace samepage {
namespace {

Errc errc_of(int code) {
  switch (code & 0xFF) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return Errc::kUnavailable;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return Errc::kCorrupt;
    case SQLITE_ERROR:
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
    case SQLITE_RANGE:
    case SQLITE_TOOBIG:
      return Errc::kInvalid;
    default:
      return Errc::kIo;
  }
}

std::string path_of(sqlite3* database) {
  const char* path = sqlite3_db_filename(database, "main");
  return path == nullptr || *path == '\0' ? std::string("the database") : std::string(path);
}

std::string sentence(sqlite3* database, int code) {
  const std::string path = path_of(database);
  switch (code & 0xFF) {
    case SQLITE_FULL:
      return path + ": the disk is full";
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return path + " is damaged or no database (" + sqlite3_errmsg(database) +
             "): restore it from a backup";
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return path + " is locked by another connection";
    default:
      return path + ": " + sqlite3_errmsg(database);
  }
}

tl::unexpected<Error> failure(sqlite3* database) {
  const int code = sqlite3_extended_errcode(database);
  return fail(errc_of(code), sentence(database, code));
}

/// Makes a missing file with mode 0600; SQLite would leave that to the umask, and its WAL follows.
/// O_EXCL matters: closing a descriptor of a file in use would drop the locks of this process.
Result<void> make_private(const std::string& path) {
  if (path.starts_with(':') || path.starts_with("file:")) return {};
  const Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (fd || errno == EEXIST) return {};
  return fail(Errc::kIo, path + ": " + std::generic_category().message(errno));
}

/// SQLite's own waiting grows to 100 ms a time, which leaves the lock idle when many want it.
constexpr std::chrono::milliseconds kBusyStep{1};

int wait_while_busy(void* busy_steps_max, int tries) {
  if (tries >= static_cast<int>(reinterpret_cast<std::intptr_t>(busy_steps_max))) return 0;
  std::this_thread::sleep_for(kBusyStep);
  return 1;
}

struct Binder {
  sqlite3_stmt* statement;
  int position;

  int operator()(std::nullptr_t) const { return sqlite3_bind_null(statement, position); }
  int operator()(std::int64_t value) const {
    return sqlite3_bind_int64(statement, position, value);
  }
  int operator()(double value) const { return sqlite3_bind_double(statement, position, value); }
  int operator()(std::string_view value) const {
    // A null pointer would bind NULL, not an empty text.
    const char* text = value.empty() ? "" : value.data();
    return sqlite3_bind_text64(statement, position, text, value.size(), SQLITE_TRANSIENT,
                               SQLITE_UTF8);
  }
  int operator()(std::span<const std::byte> value) const {
    if (value.empty()) return sqlite3_bind_zeroblob(statement, position, 0);
    return sqlite3_bind_blob64(statement, position, value.data(), value.size(), SQLITE_TRANSIENT);
  }
};

}  // namespace

void close_database(sqlite3* database) {
  sqlite3_close_v2(database);
}
void finalize_statement(sqlite3_stmt* statement) {
  sqlite3_finalize(statement);
}

Result<void> Statement::bind(std::initializer_list<SqlValue> values) {
  sqlite3_reset(statement_.get());
  const auto wanted = static_cast<std::size_t>(sqlite3_bind_parameter_count(statement_.get()));
  if (values.size() != wanted) {
    return fail(Errc::kInvalid, "the statement takes " + std::to_string(wanted) + " values, not " +
                                    std::to_string(values.size()) + ": " +
                                    sqlite3_sql(statement_.get()));
  }
  int position = 0;
  for (const SqlValue& value : values) {
    const int code = std::visit(Binder{statement_.get(), ++position}, value);
    if (code != SQLITE_OK) return failure(sqlite3_db_handle(statement_.get()));
  }
  return {};
}

Result<bool> Statement::step() {
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  auto failed = failure(sqlite3_db_handle(statement_.get()));
  sqlite3_reset(statement_.get());
  return failed;
}

Result<void> Statement::run() {
  while (TRY(step())) {
  }
  sqlite3_reset(statement_.get());
  return {};
}

bool Statement::is_null(int column) const {
  return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL;
}

std::int64_t Statement::integer(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

double Statement::real(int column) const {
  return sqlite3_column_double(statement_.get(), column);
}

std::string Statement::text(int column) const {
  const auto* data = sqlite3_column_text(statement_.get(), column);
  const int size = sqlite3_column_bytes(statement_.get(), column);
  if (data == nullptr) return {};
  return {reinterpret_cast<const char*>(data), static_cast<std::size_t>(size)};
}

std::vector<std::byte> Statement::blob(int column) const {
  const auto* data = static_cast<const std::byte*>(sqlite3_column_blob(statement_.get(), column));
  const int size = sqlite3_column_bytes(statement_.get(), column);
  if (data == nullptr) return {};
  return {data, data + size};
}

Transaction::Transaction(Transaction&& other) noexcept
    : database_(std::exchange(other.database_, nullptr)) {}

Transaction::~Transaction() {
  // Some errors have rolled back already; a second ROLLBACK then only fails.
  if (database_ != nullptr) sqlite3_exec(database_, "ROLLBACK", nullptr, nullptr, nullptr);
}

Result<void> Transaction::commit() {
  CHECK(database_ != nullptr);
  sqlite3* database = std::exchange(database_, nullptr);
  if (sqlite3_exec(database, "COMMIT", nullptr, nullptr, nullptr) == SQLITE_OK) return {};
  auto failed = failure(database);
  sqlite3_exec(database, "ROLLBACK", nullptr, nullptr, nullptr);
  return failed;
}

Result<Database> Database::open(const Options& options) {
  TRY(make_private(options.path));
  sqlite3* raw = nullptr;
  CHECK(options.busy_timeout <= std::chrono::minutes(1));
  const int flags =
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_URI;
  const int code = sqlite3_open_v2(options.path.c_str(), &raw, flags,
                                   options.vfs.empty() ? nullptr : options.vfs.c_str());
  Database database(raw);
  if (code != SQLITE_OK) {
    return fail(errc_of(code), options.path + ": " + sqlite3_errstr(code));
  }
  sqlite3_extended_result_codes(raw, 1);
  const std::intptr_t busy_steps_max = options.busy_timeout / kBusyStep;
  // The handler's argument is the number itself, not a pointer to it.
  // NOLINTNEXTLINE(performance-no-int-to-ptr)
  sqlite3_busy_handler(raw, wait_while_busy, reinterpret_cast<void*>(busy_steps_max));
  TRY(database.execute(options.vfs.empty() ? "PRAGMA journal_mode = WAL"
                                           : "PRAGMA journal_mode = PERSIST"));
  TRY(database.execute("PRAGMA foreign_keys = ON"));
  TRY(database.execute(options.synchronous_full ? "PRAGMA synchronous = FULL"
                                                : "PRAGMA synchronous = NORMAL"));
  return database;
}

Result<std::int64_t> Database::schema_version() {
  auto query = TRY(prepare("PRAGMA user_version"));
  if (!TRY(query.step())) return fail(Errc::kCorrupt, "the database has no user_version");
  return query.integer(0);
}

Result<void> Database::apply(std::string_view sql, std::int64_t version) {
  auto transaction = TRY(begin());
  // Another process may have migrated the file while this one waited for the lock.
  if (TRY(schema_version()) >= version) return {};
  TRY(execute(sql));
  TRY(execute("PRAGMA user_version = " + std::to_string(version)));
  return transaction.commit();
}

Result<void> Database::migrate(std::span<const std::string_view> schema) {
  const auto known = static_cast<std::int64_t>(schema.size());
  const std::int64_t found = TRY(schema_version());
  if (found > known) {
    return fail(Errc::kInvalid, path_of(database_.get()) +
                                    " was written by a newer program (schema " +
                                    std::to_string(found) + ", this one knows " +
                                    std::to_string(known) + "): upgrade this program");
  }
  for (std::int64_t version = found + 1; version <= known; ++version) {
    TRY(apply(schema[static_cast<std::size_t>(version - 1)], version));
  }
  return {};
}

Result<Statement> Database::prepare(std::string_view sql) {
  if (sql.size() > INT_MAX) return fail(Errc::kInvalid, "the statement is too long");
  sqlite3_stmt* raw = nullptr;
  const int code =
      sqlite3_prepare_v2(database_.get(), sql.data(), static_cast<int>(sql.size()), &raw, nullptr);
  Statement statement(raw);
  if (code != SQLITE_OK) return failure(database_.get());
  if (raw == nullptr) return fail(Errc::kInvalid, "the statement is empty");
  return statement;
}

Result<void> Database::execute(std::string_view sql) {
  const std::string text(sql);
  if (sqlite3_exec(database_.get(), text.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK) {
    return {};
  }
  return failure(database_.get());
}

Result<Transaction> Database::begin() {
  TRY(execute("BEGIN IMMEDIATE"));
  return Transaction(database_.get());
}

Result<void> Database::flush() {
  sqlite3_file* wal = nullptr;
  const int found =
      sqlite3_file_control(database_.get(), "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal);
  // No file: nothing was written through this connection.
  if (found != SQLITE_OK || wal == nullptr || wal->pMethods == nullptr) return {};
  const int code = wal->pMethods->xSync(wal, SQLITE_SYNC_NORMAL | SQLITE_SYNC_DATAONLY);
  if (code == SQLITE_OK) return {};
  return fail(Errc::kIo, path_of(database_.get()) + ": flush: " + sqlite3_errstr(code));
}

Result<void> Database::load_extension(const std::string& library) {
  Database database = TRY(open({.path = ":memory:"}));
  sqlite3_db_config(database.database_.get(), SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, nullptr);
  char* message = nullptr;
  const int code =
      sqlite3_load_extension(database.database_.get(), library.c_str(), nullptr, &message);
  const std::string why = message == nullptr ? "" : message;
  sqlite3_free(message);
  if (code == SQLITE_OK) return {};
  return fail(Errc::kNotFound, "load " + library + ": " + why);
}

std::int64_t Database::last_insert_id() const {
  return sqlite3_last_insert_rowid(database_.get());
}

std::int64_t Database::rows_changed() const {
  return sqlite3_changes64(database_.get());
}

}  // namespace samepage
