#include "server/store/schema.h"

#include "base/file.h"
#include "gtest/gtest.h"
#include "server/store/sqlite_connection.h"
#include "server/store/store.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::HasSubstr;

constexpr SqlDialect kDialect = {.bytes = "TEXT",
                                 .small = "INTEGER",
                                 .large = "INTEGER",
                                 .value = "BLOB",
                                 .table_end = " STRICT"};

class SchemaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    LWQ_ASSERT_OK_AND_ASSIGN(session_, SqliteConnection::Open(":memory:", /*read_only=*/false));
  }
  absl::Status Apply(const std::vector<Migration>& migrations) {
    return Migrate(*session_, "BEGIN IMMEDIATE", migrations, "the store");
  }
  std::unique_ptr<SqliteConnection> session_;
};

TEST_F(SchemaTest, EachStepIsAppliedOnceAndLaterOnesGoOnFromThere) {
  std::vector<Migration> steps = {{1, {"CREATE TABLE a (x INTEGER)"}}};
  ASSERT_OK(Apply(steps));
  ASSERT_OK(Apply(steps));
  steps.push_back({2, {"ALTER TABLE a ADD COLUMN y INTEGER", "INSERT INTO a VALUES (1, 2)"}});
  ASSERT_OK(Apply(steps));
  ASSERT_OK(Apply(steps));
  LWQ_ASSERT_OK_AND_ASSIGN(auto rows, session_->Query("SELECT x, y FROM a"));
  EXPECT_EQ(rows, (std::vector<std::vector<std::string>>{{"1", "2"}}));
}

TEST_F(SchemaTest, AStepThatFailsLeavesNothing) {
  EXPECT_FALSE(Apply({{1, {"CREATE TABLE a (x INTEGER)", "CREATE TABLE a (x INTEGER)"}}}).ok());
  EXPECT_OK(Apply({{1, {"CREATE TABLE a (x INTEGER)"}}}));
}

TEST_F(SchemaTest, ANewerSchemaAndAnEditedStepAreRefused) {
  const std::vector<Migration> steps = {{1, {"CREATE TABLE a (x INTEGER)"}},
                                        {2, {"CREATE TABLE b (x INTEGER)"}}};
  ASSERT_OK(Apply(steps));
  EXPECT_THAT(Apply({steps[0]}), FailsWith("SCHEMA_TOO_NEW", HasSubstr("has schema 2")));
  EXPECT_THAT(Apply({steps[0], {2, {"CREATE TABLE c (x INTEGER)"}}}),
              FailsWith("SCHEMA_CHANGED", HasSubstr("step 2")));
  EXPECT_OK(Apply(steps));
}

// Steps that a release has applied: an edit is found here before a user finds it.
TEST_F(SchemaTest, ReleasedStepsAreAsTheyWere) {
  const std::vector<Migration> steps = Migrations(kDialect);
  ASSERT_GE(steps.size(), 3);
  EXPECT_EQ(ChecksumOf(steps[0]).substr(0, 16), "43fbf63662c4b02a");
  EXPECT_EQ(ChecksumOf(steps[1]).substr(0, 16), "34b20ffd2d9343db");
}

// What is there when tenants come is the default one's.
TEST_F(SchemaTest, OldRowsBelongToTheDefaultTenant) {
  std::vector<Migration> steps = Migrations(kDialect);
  ASSERT_GE(steps.size(), 4);
  ASSERT_OK(Apply({steps.begin(), steps.begin() + 3}));
  ASSERT_OK(session_->Execute("INSERT INTO jobs VALUES ('jobs/j', 1, 2, 'm', 3, x'00')"));
  ASSERT_OK(Apply(steps));
  LWQ_ASSERT_OK_AND_ASSIGN(auto rows,
                           session_->Query("SELECT key, version, ord, tenant FROM jobs"));
  EXPECT_EQ(rows, (std::vector<std::vector<std::string>>{{"jobs/j", "1", "3", "default"}}));
}

TEST_F(SchemaTest, EveryTableOfTheStoreIsMade) {
  ASSERT_OK(Apply(Migrations(kDialect)));
  for (int t = 0; t < kNumTables; ++t) {
    const std::string name(NameOf(static_cast<Table>(t)));
    EXPECT_OK(session_->Query("SELECT key, version, state, tag, ord, value, tenant FROM " + name));
  }
}

}  // namespace
}  // namespace lwq::testing
