#include "server/store/postgres_store.h"

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "server/store/postgres_connection.h"
#include "server/store/sqlite_store.h"
#include "server/store/store_copy.h"
#include "tests/server/store/store_conformance.h"
#include "tests/testing/cutting_proxy.h"
#include "tests/testing/postgres_cluster.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::HasSubstr;
using ::testing::Not;

// One server for all cases; null where none is installed.
PostgresCluster* Cluster() {
  static std::unique_ptr<PostgresCluster>& cluster =
      *new std::unique_ptr<PostgresCluster>(PostgresCluster::Start());
  return cluster.get();
}

class StopCluster : public ::testing::Environment {
  void TearDown() override {
    if (Cluster() != nullptr) Cluster()->Kill();
  }
};
const auto* const stop_cluster = ::testing::AddGlobalTestEnvironment(new StopCluster);

// The URL of a new database.
std::string NewDatabase() {
  static int num_databases = 0;
  const std::string name = absl::StrCat("d", ++num_databases);
  auto admin = PostgresConnection::Open(Cluster()->UrlOf("postgres"));
  EXPECT_OK(admin.ok() ? (*admin)->Execute("CREATE DATABASE " + name) : admin.status());
  return Cluster()->UrlOf(name);
}

class PostgresMedium : public StoreMedium {
 public:
  static std::unique_ptr<StoreMedium> Make() {
    if (Cluster() == nullptr) return nullptr;
    return std::make_unique<PostgresMedium>();
  }
  PostgresMedium() : url_(NewDatabase()) { Reopen(); }

  Store& store() override { return *store_; }
  void Reopen() override {
    store_.reset();
    LWQ_ASSERT_OK_AND_ASSIGN(store_, PostgresStore::Open(url_));
  }
  // The database dies, and the store that is open on it has to find it again.
  void Crash() override {
    Cluster()->Kill();
    Cluster()->Run();
  }

 private:
  const std::string url_;
  std::unique_ptr<PostgresStore> store_;
};

INSTANTIATE_TEST_SUITE_P(Postgres, StoreConformance, ::testing::Values(&PostgresMedium::Make));

class PostgresStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (Cluster() == nullptr) GTEST_SKIP() << "PostgreSQL's server is not installed here";
    url_ = NewDatabase();
    LWQ_ASSERT_OK_AND_ASSIGN(store_, PostgresStore::Open(url_));
    LWQ_ASSERT_OK_AND_ASSIGN(direct_, PostgresConnection::Open(url_));
  }
  // Until so many of the database's sessions wait for a lock, 20 s at most.
  void WaitForBlockedLocks(int want) {
    std::string waiting;
    for (const absl::Time end = absl::Now() + absl::Seconds(20); absl::Now() < end;
         absl::SleepFor(absl::Milliseconds(5))) {
      LWQ_ASSERT_OK_AND_ASSIGN(const auto rows,
                               direct_->Query("SELECT count(*) FROM pg_locks WHERE NOT granted"));
      waiting = rows.at(0).at(0);
      if (waiting == absl::StrCat(want)) return;
    }
    ADD_FAILURE() << waiting << " locks are waited for, not " << want;
  }

  std::string url_;
  std::unique_ptr<PostgresStore> store_;
  std::unique_ptr<PostgresConnection> direct_;  // for what somebody else does to the database
};

TEST_F(PostgresStoreTest, ServersThatStartAtOnceMigrateOnce) {
  const std::string url = NewDatabase();
  std::vector<std::thread> servers;
  for (int i = 0; i < 4; ++i) {
    servers.emplace_back([&] { EXPECT_OK(PostgresStore::Open(url)); });
  }
  for (std::thread& server : servers) server.join();
  LWQ_ASSERT_OK_AND_ASSIGN(auto steps, direct_->Query("SELECT number FROM schema_info"));
  EXPECT_EQ(steps.size(), 4);
}

TEST_F(PostgresStoreTest, ASchemaThatIsNewerOrEditedIsRefused) {
  ASSERT_OK(direct_->Execute("UPDATE schema_info SET checksum='x' WHERE number=2"));
  EXPECT_THAT(PostgresStore::Open(url_), FailsWith("SCHEMA_CHANGED", HasSubstr("step 2")));
  ASSERT_OK(direct_->Execute("INSERT INTO schema_info VALUES (5, 'y')"));
  EXPECT_THAT(PostgresStore::Open(url_), FailsWith("SCHEMA_TOO_NEW", _));
}

TEST_F(PostgresStoreTest, ADatabaseThatIsNotThereIsUnavailableAndNoPasswordIsShown) {
  EXPECT_THAT(PostgresStore::Open("postgresql://u:secret@127.0.0.1:1/d"),
              FailsWith("STORE_UNAVAILABLE", Not(HasSubstr("secret"))));
  EXPECT_THAT(PostgresStore::Open("postgresql://u:secret@127.0.0.1:notaport/d"),
              FailsWith("STORE_UNAVAILABLE", Not(HasSubstr("secret"))));
}

TEST_F(PostgresStoreTest, LostConnectionsAreMadeAgainByTheCallThatNeedsThem) {
  ASSERT_OK(store_->Commit({PutRow("k", "1")}));
  const std::string end_all =
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname=current_database() AND "
      "pid<>pg_backend_pid()";
  LWQ_ASSERT_OK_AND_ASSIGN(auto ended, direct_->Query(end_all));
  EXPECT_GE(ended.size(), 1);
  EXPECT_OK(store_->Get(Table::kJobs, "k"));
  LWQ_ASSERT_OK_AND_ASSIGN(ended, direct_->Query(end_all));
  EXPECT_GE(ended.size(), 1);
  EXPECT_OK(store_->Commit({PutRowAt("k", "2", 1)}));
}

TEST_F(PostgresStoreTest, WhileTheServerIsGoneCallsFailAndAfterwardsTheyDoNot) {
  ASSERT_OK(store_->Commit({PutRow("k", "1")}));
  Cluster()->Kill();
  EXPECT_THAT(store_->Commit({PutRow("k", "2")}), FailsWith("STORE_UNAVAILABLE", _));
  EXPECT_THAT(store_->Get(Table::kJobs, "k"), FailsWith("STORE_UNAVAILABLE", _));
  Cluster()->Run();
  EXPECT_EQ(store_->Get(Table::kJobs, "k")->value, "1");
  EXPECT_OK(store_->Commit({PutRowAt("k", "2", 1)}));
}

TEST_F(PostgresStoreTest, ASqliteStoreIsCopiedAndCompared) {
  LWQ_ASSERT_OK_AND_ASSIGN(auto directory, TempDirectory::Create());
  LWQ_ASSERT_OK_AND_ASSIGN(auto sqlite, SqliteStore::Open(directory.path()));
  std::vector<Write> writes;
  for (int i = 0; i < 450; ++i) {
    writes.push_back(PutRow(absl::StrCat("jobs/\xc3\xa9 ", i), std::string(100, '\0'), i, i, "m"));
  }
  ASSERT_OK(sqlite->Commit(writes));
  LWQ_ASSERT_OK_AND_ASSIGN(const StoreCopyReport report, CopyStore(*sqlite, *store_));
  EXPECT_EQ(report.num_records, 450);
  EXPECT_THAT(CopyStore(*sqlite, *store_), FailsWith("STORE_NOT_EMPTY", _));
}

// The server ends the connection while it commits: nothing is written, and the store tries again.
// A sequence counts what is rolled back too.
TEST_F(PostgresStoreTest, ACommitThatTheServerGaveUpIsTriedAgain) {
  ASSERT_OK(direct_->Execute(
      "CREATE SEQUENCE commits;"
      "CREATE FUNCTION cut() RETURNS trigger AS $$ BEGIN "
      "  IF nextval('commits') <= 2 THEN"
      "    PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1);"
      "  END IF; RETURN NULL; END $$ LANGUAGE plpgsql;"
      "CREATE CONSTRAINT TRIGGER cut AFTER INSERT OR UPDATE ON jobs DEFERRABLE INITIALLY DEFERRED "
      "FOR EACH ROW EXECUTE FUNCTION cut()"));
  EXPECT_OK(store_->Commit({PutRowAt("k", "1", 0)}));
  EXPECT_EQ(store_->Get(Table::kJobs, "k")->version, 1);
  LWQ_ASSERT_OK_AND_ASSIGN(const auto commits, direct_->Query("SELECT last_value FROM commits"));
  EXPECT_EQ(commits.at(0).at(0), "3");
}

// The server commits, and its answer is lost: the store asks what became of it, and neither commits
// twice nor calls it failed.
TEST_F(PostgresStoreTest, ACommitWhoseAnswerIsLostCountsOnce) {
  LWQ_ASSERT_OK_AND_ASSIGN(auto directory, TempDirectory::Create());
  CuttingProxy proxy(directory.path() + "/.s.PGSQL.5432", Cluster()->SocketPath());
  const std::string url =
      "postgresql://lwq@/" + url_.substr(url_.find("@/") + 2) + "&host=" + directory.path();
  LWQ_ASSERT_OK_AND_ASSIGN(auto store, PostgresStore::Open(url));
  ASSERT_OK(store->Commit({PutRowAt("k", "1", 0)}));
  for (int version = 1; version <= 3; ++version) {
    proxy.CutAfter(std::string("COMMIT\0", 7));
    EXPECT_OK(store->Commit({PutRowAt("k", "2", version), PutRow("free", "x")}));
    EXPECT_EQ(proxy.num_cuts(), version);
    EXPECT_EQ(store->Get(Table::kJobs, "free")->version, version);
  }
}

// The check of the leader's term: a commit that has checked it is done before the term can change,
// and one that comes later is refused. Without the lock the old leader's commit would slip behind.
TEST_F(PostgresStoreTest, WhatACommitHasCheckedStaysUntilItIsDone) {
  ASSERT_OK(store_->Commit({PutRow("term", "old leader")}));
  ASSERT_OK(direct_->Execute("BEGIN"));
  // Somebody holds a row that the commit wants after its check.
  ASSERT_OK(direct_->Execute("INSERT INTO jobs VALUES ('blocked', 1, 0, '', 0, '')"));
  std::atomic<bool> taken_over{false};
  std::thread old_leader([&] {
    EXPECT_OK(store_->Commit({CheckRow("term", 1), PutRow("blocked", "x"), PutRow("late", "x")}));
  });
  WaitForBlockedLocks(1);  // it has checked, and waits for the row
  std::thread new_leader([&] {
    LWQ_ASSERT_OK_AND_ASSIGN(auto other, PostgresStore::Open(url_));
    EXPECT_OK(other->Commit({PutRowAt("term", "new leader", 1)}));
    taken_over = true;
  });
  WaitForBlockedLocks(2);  // the new leader waits for the old one's lock
  EXPECT_FALSE(taken_over);
  ASSERT_OK(direct_->Execute("ROLLBACK"));
  old_leader.join();
  new_leader.join();
  EXPECT_THAT(store_->Commit({CheckRow("term", 1), PutRow("late", "y")}),
              FailsWith("VERSION_CONFLICT", _));
  EXPECT_EQ(store_->Get(Table::kJobs, "late")->value, "x");
}

}  // namespace
}  // namespace lwq::testing
