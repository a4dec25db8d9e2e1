// What an upload reserves of its tenant's bytes and of the disk, and when that ends.
#include "server/service/uploads.h"

#include <memory>
#include <string>

#include "base/log.h"
#include "gtest/gtest.h"
#include "server/blob/memory_blob_store.h"
#include "server/service/quotas.h"
#include "server/store/memory_store.h"
#include "tests/testing/simulated_clock.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::HasSubstr;

constexpr int64_t kDisk = 1000;

class UploadsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    spdlog::set_level(spdlog::level::err);
    DispatchOptions options;
    options.tenants["acme"] = {.max_bytes = 100};
    scheduler_ = std::make_unique<Scheduler>(&store_, &blobs_, &clock_, &metrics_, &cpu_, options);
  }
  int64_t Used(const std::string& tenant = "acme") { return scheduler_->tenant_bytes().Of(tenant); }
  absl::StatusOr<std::unique_ptr<BlobWriter>> Open(const Caller& who, const BlobId& id) {
    return OpenUpload(*scheduler_, who, id);
  }
  absl::Status Send(const Caller& who, const std::string& content) {
    LWQ_ASSIGN_OR_RETURN(auto writer, Open(who, BlobIdOf(content)));
    LWQ_RETURN_IF_ERROR(writer->Append(content.substr(writer->committed_bytes())));
    return writer->Finish();
  }

  const Caller anna_ = {.role = kClient, .tenant = "acme"};
  const Caller otto_ = {.role = kClient, .tenant = "other"};
  const Caller worker_ = {.role = kWorker};
  SimulatedClock clock_;
  MemoryStore store_;
  MemoryBlobStore blobs_{kDisk, &clock_};
  ServerMetrics metrics_;
  Executor cpu_{"cpu", 1, 10};
  std::unique_ptr<Scheduler> scheduler_;
};

TEST_F(UploadsTest, WhatIsUnderWayCountsBeforeItsBytesFlow) {
  const std::string content(60, 'x');
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, Open(anna_, BlobIdOf(content)));
  EXPECT_EQ(Used(), 60);
  const BlobId more{Sha256Hex("more"), 41};
  EXPECT_THAT(Open(anna_, more),
              FailsWith("QUOTA_EXCEEDED", HasSubstr("of the 100 that it may have, and 41 more do not fit")));
  EXPECT_OK(Open(otto_, more)) << "another's is its own";
  EXPECT_OK(Open(anna_, {more.sha256, 40}));
  EXPECT_EQ(Used(), 60) << "one that is given up leaves nothing";
  ASSERT_OK(writer->Append(content));
  ASSERT_OK(writer->Finish());
  EXPECT_EQ(Used(), 60) << "once, not twice";
  writer.reset();
  EXPECT_EQ(Used(), 60);
  TenantBytes counted;
  ASSERT_OK(counted.Load(store_));
  EXPECT_EQ(counted.Of("acme"), 60);
}

// Else a tenant fills the disk with beginnings.
TEST_F(UploadsTest, WhatIsLeftUnfinishedCountsUntilItExpires) {
  for (const char* name : {"a", "b"}) {
    LWQ_ASSERT_OK_AND_ASSIGN(auto writer, Open(anna_, {Sha256Hex(name), 50}));
    ASSERT_OK(writer->Append(std::string(30, 'x')));
  }
  EXPECT_EQ(Used(), 60);
  EXPECT_THAT(Open(anna_, {Sha256Hex("c"), 41}), FailsWith("QUOTA_EXCEEDED", _));
  // Who goes on with one needs no more room than the whole of it.
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, Open(anna_, {Sha256Hex("a"), 50}));
  EXPECT_EQ(writer->committed_bytes(), 30);
  EXPECT_EQ(Used(), 80);
  EXPECT_THAT(Open(anna_, {Sha256Hex("a"), 50}), FailsWith("QUOTA_EXCEEDED", _));
  writer.reset();
  EXPECT_EQ(Used(), 60);
  // A server that starts finds them.
  scheduler_->tenant_bytes().SetUnfinished({});
  EXPECT_EQ(Used(), 0);
  ASSERT_OK(CountUnfinished(*scheduler_));
  EXPECT_EQ(Used(), 60);
  clock_.Advance(absl::Hours(25));
  LWQ_ASSERT_OK_AND_ASSIGN(writer, Open(anna_, {Sha256Hex("b"), 50}));
  ASSERT_OK(blobs_.ExpireUploads(clock_.Now() - absl::Hours(24)));
  ASSERT_OK(CountUnfinished(*scheduler_));
  EXPECT_EQ(Used(), 50) << "the one that is open stays";
  writer.reset();
  EXPECT_EQ(Used(), 30);
}

// Its room was there when it began, and an artifact took it.
TEST_F(UploadsTest, TheQuotaIsLookedAtAgainWhenTheUploadIsNoted) {
  const std::string content(60, 'x');
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, Open(anna_, BlobIdOf(content)));
  ASSERT_OK(writer->Append(content));
  scheduler_->tenant_bytes().Add("acme", 41);
  EXPECT_THAT(writer->Finish(), FailsWith("QUOTA_EXCEEDED", _));
  writer.reset();
  EXPECT_EQ(Used(), 41);
  EXPECT_FALSE(*HasFor(*scheduler_, anna_, BlobIdOf(content)));
  // So with what is there already, which nobody opens a writer for.
  EXPECT_THAT(NoteUpload(*scheduler_, anna_, BlobIdOf(content)), FailsWith("QUOTA_EXCEEDED", _));
  EXPECT_EQ(Used(), 41);
  scheduler_->tenant_bytes().Add("acme", -1);
  EXPECT_OK(NoteUpload(*scheduler_, anna_, BlobIdOf(content)));
  EXPECT_OK(NoteUpload(*scheduler_, anna_, BlobIdOf(content))) << "it is noted";
  EXPECT_EQ(Used(), 100);
}

TEST_F(UploadsTest, TheDisksRoomIsReservedForAsLongAsTheCallLasts) {
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, Open(otto_, {Sha256Hex("large"), 700}));
  EXPECT_THAT(Open(worker_, {Sha256Hex("other"), 400}), FailsWith("STORAGE_FULL", _));
  EXPECT_THAT(Open(otto_, {Sha256Hex("other"), 400}), FailsWith("STORAGE_FULL", _));
  EXPECT_EQ(Used("other"), 700) << "what was refused counts no more";
  writer.reset();
  EXPECT_OK(Open(worker_, {Sha256Hex("other"), 400}));
  EXPECT_EQ(Used("other"), 0);
}

// By no call: not how far one is, not whether another has it whole, not by who may go on.
TEST_F(UploadsTest, NothingTellsWhatAnotherTenantHas) {
  const std::string content(50, 'x');
  const BlobId id = BlobIdOf(content);
  LWQ_ASSERT_OK_AND_ASSIGN(auto first, Open(anna_, id));
  ASSERT_OK(first->Append(content.substr(0, 20)));
  EXPECT_EQ(*UploadedFor(*scheduler_, anna_, id), 20);
  EXPECT_EQ(*UploadedFor(*scheduler_, otto_, id), 0);
  EXPECT_EQ(*UploadedFor(*scheduler_, worker_, id), 0);
  {
    LWQ_ASSERT_OK_AND_ASSIGN(auto second, Open(otto_, id));
    EXPECT_EQ(second->committed_bytes(), 0);
    ASSERT_OK(second->Append(content.substr(0, 10)));
  }
  ASSERT_OK(first->Append(content.substr(20)));
  ASSERT_OK(first->Finish());
  first.reset();
  // As if nobody had finished it.
  EXPECT_EQ(*UploadedFor(*scheduler_, otto_, id), 10);
  EXPECT_FALSE(*HasFor(*scheduler_, otto_, id));
  {
    LWQ_ASSERT_OK_AND_ASSIGN(auto second, Open(otto_, id));
    EXPECT_EQ(second->committed_bytes(), 10);
    ASSERT_OK(second->Append(content.substr(10, 10)));
  }
  EXPECT_EQ(*UploadedFor(*scheduler_, otto_, id), 20);
  ASSERT_OK(Send(otto_, content));
  EXPECT_TRUE(*HasFor(*scheduler_, otto_, id));
}

// Rows that a collection, or another call, changes between the look and the write.
TEST_F(UploadsTest, ARowThatIsCollectedMeanwhileIsWrittenAnew) {
  const std::string content(50, 'x');
  const BlobId id = BlobIdOf(content);
  ASSERT_OK(Send(anna_, content));
  LWQ_ASSERT_OK_AND_ASSIGN(const Record row, store_.Get(Table::kUploads, "acme/" + id.sha256));
  clock_.Advance(absl::Hours(1));
  LWQ_ASSERT_OK_AND_ASSIGN(const std::vector<BlobId> missing, MissingFor(*scheduler_, anna_, {id}));
  EXPECT_TRUE(missing.empty());
  // The collection saw the row before: it does not go.
  Write remove{.table = Table::kUploads, .remove = true, .expected_version = row.version};
  remove.record.key = row.key;
  EXPECT_THAT(store_.Commit({remove}), FailsWith("VERSION_CONFLICT", _));
  LWQ_ASSERT_OK_AND_ASSIGN(const Record now, store_.Get(Table::kUploads, row.key));
  EXPECT_EQ(now.order, scheduler_->NowUs());
  EXPECT_EQ(now.tenant, "acme");
  EXPECT_EQ(UploadedBytes(now), 50);
  EXPECT_EQ(Used(), 50);
}

}  // namespace
}  // namespace lwq::testing
