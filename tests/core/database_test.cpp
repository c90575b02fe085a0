// The promise under test: what was committed is there after a reopening and nothing else is; a
// schema moves forward only; every failure of SQLite becomes the reaction it calls for.

#include "core/database.h"

#include <array>
#include <fstream>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/core/temporary_folder.h"

namespace samepage {
namespace {

constexpr std::array<std::string_view, 2> kSchema = {
    "CREATE TABLE hosts (name TEXT PRIMARY KEY, seen INTEGER NOT NULL);",
    "ALTER TABLE hosts ADD COLUMN key BLOB;",
};

class DatabaseTest : public ::testing::Test {
 protected:
  Database open() {
    auto database = Database::open({.path = path_, .busy_timeout = std::chrono::milliseconds(0)});
    EXPECT_TRUE(database) << database.error().message();
    return std::move(*database);
  }

  Database open_migrated() {
    Database database = open();
    EXPECT_TRUE(database.migrate(kSchema));
    return database;
  }

  static std::int64_t count(Database& database) {
    auto query = database.prepare("SELECT count(*) FROM hosts");
    EXPECT_TRUE(query->step().value());
    return query->integer(0);
  }

  TemporaryFolder folder_;
  std::string path_ = folder_.file("state.db");
};

TEST_F(DatabaseTest, ReturnsEveryTypeAsItWasBound) {
  Database database = open();
  ASSERT_TRUE(database.execute("CREATE TABLE t (i, r, t, b, n)"));
  const std::array blob = {std::byte{0}, std::byte{255}};
  auto insert = database.prepare("INSERT INTO t VALUES (?, ?, ?, ?, ?)");
  ASSERT_TRUE(insert->bind({INT64_MIN, 0.5, std::string_view("a\0b", 3), blob, nullptr}));
  ASSERT_TRUE(insert->run());

  auto query = database.prepare("SELECT * FROM t");
  ASSERT_TRUE(query->step().value());

  EXPECT_EQ(query->integer(0), INT64_MIN);
  EXPECT_EQ(query->real(1), 0.5);
  EXPECT_EQ(query->text(2), std::string("a\0b", 3));
  EXPECT_EQ(query->blob(3), std::vector(blob.begin(), blob.end()));
  EXPECT_TRUE(query->is_null(4));
  EXPECT_FALSE(query->step().value());
}

TEST_F(DatabaseTest, AStatementStartsOverWithNewValues) {
  Database database = open_migrated();
  auto insert = database.prepare("INSERT INTO hosts (name, seen) VALUES (?, ?)");
  for (const char* name : {"a", "b", ""}) {
    ASSERT_TRUE(insert->bind({name, 1}));
    ASSERT_TRUE(insert->run());
  }
  EXPECT_EQ(database.rows_changed(), 1);
  EXPECT_EQ(database.last_insert_id(), 3);
  EXPECT_EQ(count(database), 3);
}

TEST_F(DatabaseTest, KeepsWhatWasCommittedAndNothingElse) {
  {
    Database database = open_migrated();
    {
      auto kept = database.begin();
      ASSERT_TRUE(database.execute("INSERT INTO hosts (name, seen) VALUES ('kept', 1)"));
      ASSERT_TRUE(kept->commit());
    }
    const auto dropped = database.begin();
    ASSERT_TRUE(database.execute("INSERT INTO hosts (name, seen) VALUES ('dropped', 1)"));
    EXPECT_EQ(count(database), 2);
  }
  Database database = open_migrated();

  EXPECT_EQ(count(database), 1);
}

TEST_F(DatabaseTest, MigratesStepByStepAndKeepsTheData) {
  {
    Database database = open();
    ASSERT_TRUE(database.migrate(std::span(kSchema).first(1)));
    ASSERT_TRUE(database.execute("INSERT INTO hosts VALUES ('old', 1)"));
  }
  Database database = open_migrated();

  auto query = database.prepare("SELECT name, key FROM hosts");
  ASSERT_TRUE(query->step().value());

  EXPECT_EQ(query->text(0), "old");
  EXPECT_TRUE(query->is_null(1));
}

TEST_F(DatabaseTest, AFailedMigrationChangesNothing) {
  Database database = open_migrated();
  const std::array<std::string_view, 3> broken = {
      kSchema[0], kSchema[1], "CREATE TABLE moves (id INTEGER); CREATE NONSENSE;"};

  EXPECT_EQ(database.migrate(broken).error().code(), Errc::kInvalid);

  EXPECT_FALSE(database.prepare("SELECT * FROM moves"));
  EXPECT_TRUE(database.migrate(kSchema));
}

TEST_F(DatabaseTest, RefusesTheSchemaOfANewerProgram) {
  { const Database database = open_migrated(); }
  Database database = open();

  const auto refused = database.migrate(std::span(kSchema).first(1));

  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Errc::kInvalid);
  EXPECT_NE(refused.error().message().find("newer program (schema 2, this one knows 1)"),
            std::string::npos)
      << refused.error().message();
}

TEST_F(DatabaseTest, EnforcesForeignKeysAndConstraints) {
  Database database = open_migrated();
  ASSERT_TRUE(database.execute("CREATE TABLE vms (host TEXT REFERENCES hosts(name))"));

  EXPECT_EQ(database.execute("INSERT INTO vms VALUES ('nobody')").error().code(), Errc::kInvalid);
  EXPECT_EQ(database.execute("INSERT INTO hosts (name) VALUES ('a')").error().code(),
            Errc::kInvalid);
}

TEST_F(DatabaseTest, RefusesTheWrongNumberOfValuesAndWrongSql) {
  Database database = open_migrated();
  auto query = database.prepare("SELECT * FROM hosts WHERE name = ?");
  EXPECT_EQ(query->bind({"a", "b"}).error().code(), Errc::kInvalid);
  EXPECT_EQ(database.prepare("SELECT FROM").error().code(), Errc::kInvalid);
  EXPECT_EQ(database.prepare("").error().code(), Errc::kInvalid);
}

TEST_F(DatabaseTest, SaysUnavailableWhileAnotherConnectionWrites) {
  Database writer = open_migrated();
  Database other = open();
  const auto writing = writer.begin();

  EXPECT_EQ(other.begin().error().code(), Errc::kUnavailable);
}

TEST_F(DatabaseTest, SaysThatTheDiskIsFull) {
  Database database = open_migrated();
  ASSERT_TRUE(database.execute("PRAGMA max_page_count = 5"));

  const auto refused =
      database.execute("INSERT INTO hosts (name, seen) VALUES (hex(zeroblob(100000)), 1)");

  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Errc::kIo);
  EXPECT_NE(refused.error().message().find("the disk is full"), std::string::npos);
}

TEST_F(DatabaseTest, SaysCorruptForAFileThatIsNoDatabase) {
  std::ofstream(path_) << std::string(8192, 'x');

  EXPECT_EQ(Database::open({.path = path_}).error().code(), Errc::kCorrupt);
}

TEST_F(DatabaseTest, SaysIoForAPathThatCannotBe) {
  EXPECT_EQ(Database::open({.path = folder_.file("no/such/folder.db")}).error().code(), Errc::kIo);
}

TEST_F(DatabaseTest, MakesAFileThatOnlyItsOwnerReads) {
  const Database database = open_migrated();
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
}

}  // namespace
}  // namespace samepage
