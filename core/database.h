#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/handle.h"
#include "core/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace samepage {

void close_database(sqlite3* database);
void finalize_statement(sqlite3_stmt* statement);

class Database;

/// A value for one `?` of a statement; borrows text and blobs until bind() returns.
using SqlValue = std::variant<std::nullptr_t, std::int64_t, double, std::string_view,
                              std::span<const std::byte>>;

/// A prepared SQL statement: bind(), then step() through its rows, or run() when it has none.
///
///     auto hosts = TRY(database.prepare("SELECT name, seen FROM hosts WHERE seen > ?"));
///     TRY(hosts.bind({since}));
///     while (TRY(hosts.step())) use(hosts.text(0), hosts.integer(1));
///
/// Threads: its database's. Lifetime: must not outlive its database.
/// Errors of every method: kUnavailable: another connection holds the lock beyond the busy
/// time-out; retry. kInvalid: the SQL, a value or a constraint is violated. kCorrupt: the file is
/// damaged. kIo: the disk refused or is full.
class Statement {
 public:
  /// Starts over with these values, one for each `?` in order. kInvalid: not as many as `?`.
  Result<void> bind(std::initializer_list<SqlValue> values);

  /// Moves to the next row; false when there is none left. bind() again to start over.
  Result<bool> step();

  /// Executes to the end and ignores rows.
  Result<void> run();

  // The current row's columns, from 0. Valid after step() returned true. SQLite converts types; a
  // NULL is 0, 0.0 or empty.
  bool is_null(int column) const;
  std::int64_t integer(int column) const;
  double real(int column) const;
  std::string text(int column) const;
  std::vector<std::byte> blob(int column) const;

 private:
  friend class Database;
  explicit Statement(sqlite3_stmt* statement) : statement_(statement) {}

  Handle<sqlite3_stmt, finalize_statement> statement_;
};

/// Changes that take effect together at commit(), or not at all: destroying it uncommitted rolls
/// back. Lifetime: must not outlive its database.
class Transaction {
 public:
  Transaction(Transaction&& other) noexcept;
  Transaction& operator=(Transaction&&) = delete;
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  ~Transaction();

  /// After an error nothing has been changed. Errors as Statement's.
  Result<void> commit();

 private:
  friend class Database;
  explicit Transaction(sqlite3* database) : database_(database) {}

  sqlite3* database_;  // Null once it is committed or rolled back.
};

/// One connection to an SQLite file in WAL mode with foreign keys on. Connections that want the
/// write lock at the same time try again every millisecond, until the busy time-out.
/// Threads: one at a time; a thread that needs the file opens a connection of its own.
class Database {
 public:
  struct Options {
    std::string path;  ///< Made, readable by its owner only, when it is missing. ":memory:" works.
    bool synchronous_full = true;  ///< A commit survives a power cut, not only a killed process.

    /// SQLite's name of a file system of its own that `path`, then a `file:` URI, lies on. Such a
    /// file has a rollback journal instead of a WAL.
    std::string vfs = {};
    std::chrono::milliseconds busy_timeout{5000};  ///< At most a minute.
  };

  /// kIo: the file cannot be opened. kCorrupt: it is no database.
  static Result<Database> open(const Options& options);

  /// Brings the schema up to date. The file's `user_version` counts the texts already applied;
  /// those after it run in order, each in one transaction with its count. Published texts never
  /// change. kInvalid: the file was written by a newer program; nothing was changed.
  Result<void> migrate(std::span<const std::string_view> schema);

  Result<Statement> prepare(std::string_view sql);

  /// Runs SQL without values, more than one statement if need be.
  Result<void> execute(std::string_view sql);

  /// Takes the write lock at once, so that what is read inside stays true until commit.
  Result<Transaction> begin();

  /// Makes what was committed so far, by any connection, survive a power cut. For connections that
  /// are not synchronous_full: many of them flush at the price of one.
  Result<void> flush();

  /// Loads a shared library that gives SQLite a file system, for the life of the process.
  /// kNotFound: it cannot be loaded; the message says why.
  static Result<void> load_extension(const std::string& library);

  std::int64_t last_insert_id() const;

  /// Rows that the last INSERT, UPDATE or DELETE changed.
  std::int64_t rows_changed() const;

 private:
  explicit Database(sqlite3* database) : database_(database) {}
  Result<std::int64_t> schema_version();
  Result<void> apply(std::string_view sql, std::int64_t version);

  Handle<sqlite3, close_database> database_;
};

}  // namespace samepage
