#include "server/store/sqlite_store.h"

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/server/store/store_conformance.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;

class SqliteMedium : public StoreMedium {
 public:
  static std::unique_ptr<StoreMedium> Make() {
    auto directory = TempDirectory::Create();
    EXPECT_OK(directory);
    return std::make_unique<SqliteMedium>(*std::move(directory));
  }
  explicit SqliteMedium(TempDirectory directory) : directory_(std::move(directory)) { Open(); }

  Store& store() override { return *store_; }
  void Reopen() override {
    store_.reset();
    Open();
  }
  // What SIGKILL leaves: the files as they are while the store is open.
  void Crash() override {
    const std::string before = Folder();
    ++num_crashes_;
    ASSERT_OK(MakeDirectories(Folder()));
    for (const char* name : {"lwq.db", "lwq.db-wal", "open"}) {
      LWQ_ASSERT_OK_AND_ASSIGN(std::string content, ReadFile(JoinPath(before, name), 1 << 26));
      ASSERT_OK(WriteFileAtomically(JoinPath(Folder(), name), content));
    }
    Reopen();
  }

 private:
  std::string Folder() const { return absl::StrCat(directory_.path(), "/", num_crashes_); }
  void Open() { LWQ_ASSERT_OK_AND_ASSIGN(store_, SqliteStore::Open(Folder())); }

  TempDirectory directory_;
  int num_crashes_ = 0;
  std::unique_ptr<SqliteStore> store_;
};

INSTANTIATE_TEST_SUITE_P(Sqlite, StoreConformance, ::testing::Values(&SqliteMedium::Make));

TEST(SqliteStore, TwoServersDoNotShareADirectory) {
  LWQ_ASSERT_OK_AND_ASSIGN(auto directory, TempDirectory::Create());
  LWQ_ASSERT_OK_AND_ASSIGN(auto store, SqliteStore::Open(directory.path()));
  EXPECT_THAT(SqliteStore::Open(directory.path()), FailsWith("STORE_LOCKED", _));
  store.reset();
  EXPECT_OK(SqliteStore::Open(directory.path()));
}

TEST(SqliteStore, ADamagedFileIsRefusedAfterAnUncleanStop) {
  LWQ_ASSERT_OK_AND_ASSIGN(auto directory, TempDirectory::Create());
  {
    LWQ_ASSERT_OK_AND_ASSIGN(auto store, SqliteStore::Open(directory.path()));
    for (int i = 0; i < 200; ++i) {
      ASSERT_OK(store->Commit({PutRow(std::to_string(i), std::string(500, 'x'))}));
    }
  }
  const std::string path = directory.path() + "/lwq.db";
  LWQ_ASSERT_OK_AND_ASSIGN(std::string content, ReadFile(path, 1 << 24));
  for (size_t i = 4096; i < content.size(); i += 64) content[i] ^= 0x55;
  ASSERT_OK(WriteFileAtomically(path, content));
  ASSERT_OK(WriteFileAtomically(directory.path() + "/open", "unclean"));
  EXPECT_THAT(SqliteStore::Open(directory.path()), FailsWith("STORE_CORRUPT", _));
}

}  // namespace
}  // namespace lwq::testing
