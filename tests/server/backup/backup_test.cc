#include "server/backup/backup.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/lwq/v1/record.pb.h"
#include "server/blob/local_blob_store.h"
#include "server/store/data_directory.h"
#include "server/store/sqlite_store.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A data directory that a server works in: its store is open, and locked.
class BackupTest : public ::testing::Test {
 protected:
  void SetUp() override {
    LWQ_ASSERT_OK_AND_ASSIGN(store_, SqliteStore::Open(data()));
    LWQ_ASSERT_OK_AND_ASSIGN(blobs_, LocalBlobStore::Open(JoinPath(data(), "blobs")));
  }

  std::string Place(const std::string& name) const { return JoinPath(directory_.path(), name); }
  std::string data() const { return Place("data"); }
  std::string backup() const { return Place("backup"); }
  std::string restored() const { return Place("restored"); }

  static std::string TextOf(int i) { return absl::StrCat("content of blob ", i); }
  static std::string FileOf(const std::string& data, const BlobId& id) {
    return absl::StrCat(data, "/blobs/sha256/", id.sha256.substr(0, 2), "/", id.sha256.substr(2, 2),
                        "/", id.sha256);
  }

  // As the server does: the blob, and then the record that names it.
  absl::Status Put(int i) {
    LWQ_ASSIGN_OR_RETURN(const BlobId id, blobs_->Put(TextOf(i)));
    v1::CacheRecord record;
    v1::BlobRef& blob = *record.mutable_output()->add_blobs()->mutable_blob();
    blob.set_sha256(id.sha256);
    blob.set_size_bytes(id.size_bytes);
    Write write{.table = Table::kCache};
    write.record.key = absl::StrCat("k", i);
    write.record.value = record.SerializeAsString();
    return store_->Commit({write});
  }
  absl::Status Remove(int i) {
    Write write{.table = Table::kCache, .remove = true, .expected_version = 1};
    write.record.key = absl::StrCat("k", i);
    LWQ_RETURN_IF_ERROR(store_->Commit({write}));
    return blobs_->Delete(BlobIdOf(TextOf(i)));
  }

  // Keys of the records there, each of which has its blob with the right content.
  std::set<std::string> KeysOf(const std::string& data) {
    std::set<std::string> keys;
    auto store = SqliteStore::Open(data);
    auto blobs = LocalBlobStore::Open(JoinPath(data, "blobs"));
    EXPECT_OK(store.status());
    EXPECT_OK(blobs.status());
    const auto rows = (*store)->List(Table::kCache, {});
    EXPECT_OK(rows.status());
    for (const Record& row : *rows) {
      keys.insert(row.key);
      v1::CacheRecord record;
      EXPECT_TRUE(record.ParseFromString(row.value));
      const v1::BlobRef& blob = record.output().blobs(0).blob();
      auto reader = (*blobs)->OpenRead({blob.sha256(), blob.size_bytes()});
      EXPECT_OK(reader.status()) << row.key;
      if (!reader.ok()) continue;
      EXPECT_EQ(*(*reader)->Read(0, 1000), TextOf(std::stoi(row.key.substr(1))));
    }
    return keys;
  }

  TempDirectory directory_ = *TempDirectory::Create();
  std::unique_ptr<SqliteStore> store_;
  std::unique_ptr<LocalBlobStore> blobs_;
};

TEST_F(BackupTest, OfAServerThatWritesEveryRecordHasItsBlob) {
  for (int i = 0; i < 20; ++i) ASSERT_OK(Put(i));
  std::thread writer([&] {
    for (int i = 20; i < 120; ++i) EXPECT_OK(Put(i));
  });
  const absl::StatusOr<BackupReport> report = BackUp(data(), backup());
  writer.join();
  ASSERT_OK(report.status());
  EXPECT_THAT(report->missing, IsEmpty());
  EXPECT_GE(report->num_records, 20);
  ASSERT_OK(Restore(backup(), restored()).status());
  const std::set<std::string> keys = KeysOf(restored());
  EXPECT_EQ(static_cast<int64_t>(keys.size()), report->num_records);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(keys.count(absl::StrCat("k", i)), 1u) << i;
}

// Its record is gone from the next look, so the backup is whole without it.
TEST_F(BackupTest, WhatIsDeletedInTheMiddleIsNotInIt) {
  for (int i = 0; i < 3; ++i) ASSERT_OK(Put(i));
  int looks = 0;
  const BackupOptions options = {.on_snapshot = [&] {
    if (++looks > 1) return;
    EXPECT_OK(Remove(1));
  }};
  LWQ_ASSERT_OK_AND_ASSIGN(const BackupReport report, BackUp(data(), backup(), options));
  EXPECT_EQ(looks, 2);
  EXPECT_THAT(report.missing, IsEmpty());
  EXPECT_EQ(report.num_blobs, 2);
  ASSERT_OK(Restore(backup(), restored()).status());
  EXPECT_THAT(KeysOf(restored()), ElementsAre("k0", "k2"));
}

TEST_F(BackupTest, BlobsThatTheServerHasLostOrDamagedAreNamed) {
  for (int i = 0; i < 4; ++i) ASSERT_OK(Put(i));
  const BlobId lost = BlobIdOf(TextOf(0)), damaged = BlobIdOf(TextOf(1));
  ASSERT_OK(blobs_->Delete(lost));
  std::ofstream(FileOf(data(), damaged)) << "CONTENT of blob 1";
  LWQ_ASSERT_OK_AND_ASSIGN(const BackupReport report, BackUp(data(), backup()));
  EXPECT_THAT(report.missing, ::testing::UnorderedElementsAre(lost.sha256, damaged.sha256));
  EXPECT_FALSE(FileExists(FileOf(backup(), damaged)));
  EXPECT_THAT(CheckNoneMissing(report, backup()),
              FailsWith("BLOB_MISSING", HasSubstr("without 2 of the 4 blobs")));
  LWQ_ASSERT_OK_AND_ASSIGN(const BackupReport back, Restore(backup(), restored()));
  EXPECT_EQ(back.missing, report.missing);
  EXPECT_EQ(back.num_blobs, 2);
}

// One that is read in parts.
TEST_F(BackupTest, ALargeBlobThatIsDamagedIsNamedToo) {
  ASSERT_OK(Put(0));
  const std::string large(5 << 20, 'x');
  LWQ_ASSERT_OK_AND_ASSIGN(const BlobId id, blobs_->Put(large));
  v1::CacheRecord record;
  v1::BlobRef& blob = *record.mutable_output()->add_blobs()->mutable_blob();
  blob.set_sha256(id.sha256);
  blob.set_size_bytes(id.size_bytes);
  Write write{.table = Table::kCache};
  write.record.key = "large";
  write.record.value = record.SerializeAsString();
  ASSERT_OK(store_->Commit({write}));
  {
    std::fstream file(FileOf(data(), id), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(4 << 20);
    file.put('!');
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const BackupReport report, BackUp(data(), backup()));
  EXPECT_THAT(report.missing, ElementsAre(id.sha256));
}

// A backup that was stopped, by a full disk say, is taken up by the next one; nobody else's
// directory is.
TEST_F(BackupTest, ABackupThatWasNotFinishedGoesOn) {
  for (int i = 0; i < 3; ++i) ASSERT_OK(Put(i));
  BackupOptions stopped;
  stopped.on_snapshot = [] { throw std::runtime_error("stopped"); };
  EXPECT_THROW(BackUp(data(), backup(), stopped).status().IgnoreError(), std::runtime_error);
  EXPECT_THAT(Restore(backup(), restored()),
              FailsWith("FILE_NOT_FOUND", HasSubstr("not finished")));
  ASSERT_OK(Put(3));
  LWQ_ASSERT_OK_AND_ASSIGN(const BackupReport report, BackUp(data(), backup()));
  EXPECT_EQ(report.num_blobs, 4);
  EXPECT_FALSE(FileExists(JoinPath(backup(), "backup.begun")));
  EXPECT_THAT(BackUp(data(), backup()), FailsWith("OUTPUT_EXISTS", _));
  EXPECT_OK(Restore(backup(), restored()).status());
}

// The server's --blobs is elsewhere: the folder in the data directory is not made, and not taken
// for one whose blobs are lost.
TEST_F(BackupTest, BlobsThatAreElsewhereAreAskedFor) {
  ASSERT_OK(Put(0));
  blobs_.reset();
  const std::string own = JoinPath(data(), "blobs");
  ASSERT_OK(RenameFile(own, Place("big")));
  EXPECT_THAT(BackUp(data(), Place("b1")), FailsWith("FILE_NOT_FOUND", HasSubstr("--blobs")));
  EXPECT_FALSE(FileExists(own));
  EXPECT_FALSE(FileExists(Place("b1/backup.json")));
  int i = 0;
  for (const char* scheme : {"", "file:", "file://"}) {
    const std::string to = Place(absl::StrCat("to", ++i));
    LWQ_ASSERT_OK_AND_ASSIGN(
        const BackupReport report,
        BackUp(data(), to, {.blobs = scheme + Place("big"), .on_snapshot = {}}));
    EXPECT_EQ(report.num_blobs, 1) << scheme;
    EXPECT_OK(CheckNoneMissing(report, to));
  }
}

TEST_F(BackupTest, BlobsThatAreInNoFolderAreRefused) {
  ASSERT_OK(Put(0));
  for (const char* url : {"s3://bucket/prefix?region=r", "memory:", "gs://bucket", "file:"}) {
    EXPECT_THAT(BackUp(data(), backup(), {.blobs = url, .on_snapshot = {}}),
                FailsWith("BLOB_URL_INVALID", HasSubstr(url)));
  }
  EXPECT_FALSE(FileExists(backup()));
}

TEST_F(BackupTest, ARecordThatNamesNoBlobNeedsNoFolder) {
  blobs_.reset();
  ASSERT_OK(RemoveAll(JoinPath(data(), "blobs")));
  Write write{.table = Table::kDatasets};
  write.record.key = "d";
  ASSERT_OK(store_->Commit({write}));
  LWQ_ASSERT_OK_AND_ASSIGN(const BackupReport report, BackUp(data(), backup()));
  EXPECT_EQ(report.num_records, 1);
  EXPECT_FALSE(FileExists(JoinPath(data(), "blobs")));
  EXPECT_OK(Restore(backup(), restored()).status());
}

TEST_F(BackupTest, ABackupWithoutAnyOfItsBlobsIsNotRestored) {
  ASSERT_OK(Put(0));
  ASSERT_OK(blobs_->Delete(BlobIdOf(TextOf(0))));
  ASSERT_OK(BackUp(data(), backup()).status());
  EXPECT_THAT(Restore(backup(), restored()),
              FailsWith("BLOB_MISSING", HasSubstr("none of the 1 blobs")));
  // A server would find no records there, and begin anew.
  EXPECT_THAT(SqliteStore::Open(restored()),
              FailsWith("STORE_CORRUPT", HasSubstr("restore again")));
}

TEST_F(BackupTest, NothingIsRestoredWhereAServerStarts) {
  ASSERT_OK(Put(0));
  ASSERT_OK(BackUp(data(), backup()).status());
  ASSERT_OK(MakeDirectories(restored()));
  {
    LWQ_ASSERT_OK_AND_ASSIGN(const auto lock, DirectoryLock::Take(restored()));
    EXPECT_THAT(Restore(backup(), restored()), FailsWith("STORE_LOCKED", _));
  }
  EXPECT_OK(Restore(backup(), restored()).status());
}

TEST_F(BackupTest, NothingIsWrittenWhereSomethingIs) {
  ASSERT_OK(Put(0));
  ASSERT_OK(MakeDirectories(backup()));
  ASSERT_OK(WriteFileAtomically(JoinPath(backup(), "mine"), "x"));
  EXPECT_THAT(BackUp(data(), backup()), FailsWith("OUTPUT_EXISTS", HasSubstr("mine")));
  EXPECT_THAT(BackUp(Place("nothing"), Place("b")), FailsWith("FILE_NOT_FOUND", _));
  ASSERT_OK(BackUp(data(), Place("good")).status());
  EXPECT_THAT(Restore(Place("good"), data()), FailsWith("OUTPUT_EXISTS", _));
}

TEST_F(BackupTest, ABackupThatIsDamagedOrUnfinishedIsNotRestored) {
  for (int i = 0; i < 3; ++i) ASSERT_OK(Put(i));
  ASSERT_OK(BackUp(data(), backup()).status());
  const auto copy = [&](const std::string& name) {
    std::filesystem::copy(backup(), Place(name), std::filesystem::copy_options::recursive);
    return Place(name);
  };
  const std::string unfinished = copy("unfinished");
  ASSERT_OK(RemoveAll(JoinPath(unfinished, "backup.json")));
  EXPECT_THAT(Restore(unfinished, Place("r1")),
              FailsWith("FILE_NOT_FOUND", HasSubstr("not finished")));

  const std::string records = copy("records");
  {
    std::fstream file(JoinPath(records, "lwq.db"), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(5000);
    file.put('!');
  }
  EXPECT_THAT(Restore(records, Place("r2")), FailsWith("STORE_CORRUPT", _));
  EXPECT_FALSE(FileExists(Place("r2/lwq.db")));

  const std::string blob = copy("blob");
  ASSERT_OK(RemoveAll(FileOf(blob, BlobIdOf(TextOf(2)))));
  EXPECT_THAT(Restore(blob, Place("r3")), FailsWith("STORE_CORRUPT", HasSubstr("lost blob")));
  EXPECT_FALSE(FileExists(Place("r3/lwq.db")));
}

// The server is stopped: its database has neither of SQLite's other files.
TEST_F(BackupTest, OfAServerThatIsStopped) {
  ASSERT_OK(Put(0));
  store_.reset();
  ASSERT_OK(BackUp(data(), backup()).status());
  ASSERT_OK(Restore(backup(), restored()).status());
  EXPECT_THAT(KeysOf(restored()), ElementsAre("k0"));
}

// A backup is on another disk perhaps, which cannot be written, and is looked at again by people.
TEST_F(BackupTest, ABackupStaysAsItIsWhateverIsWrongWithIt) {
  for (int i = 0; i < 3; ++i) ASSERT_OK(Put(i));
  ASSERT_OK(BackUp(data(), backup()).status());
  std::ofstream(FileOf(backup(), BlobIdOf(TextOf(1)))) << "CONTENT of blob 1";
  for (const char* empty : {"uploads", "quarantine"}) {
    ASSERT_OK(RemoveAll(absl::StrCat(backup(), "/blobs/", empty)));
  }
  const auto files = [&] {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(backup())) {
      names.insert(entry.path().string());
    }
    return names;
  };
  const std::set<std::string> before = files();
  EXPECT_THAT(Restore(backup(), restored()), FailsWith("STORE_CORRUPT", HasSubstr("damaged")));
  EXPECT_EQ(files(), before);
}

}  // namespace
}  // namespace lwq::testing
