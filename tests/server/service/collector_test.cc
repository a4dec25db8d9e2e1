// What is collected and what is not, over every store and every blob store.
#include "server/service/collector.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/log.h"
#include "server/blob/local_blob_store.h"
#include "server/blob/memory_blob_store.h"
#include "server/blob/s3_blob_store.h"
#include "server/service/deletion.h"
#include "server/service/record_writes.h"
#include "server/service/uploads.h"
#include "server/store/memory_store.h"
#include "server/store/postgres_connection.h"
#include "server/store/postgres_store.h"
#include "server/store/sqlite_store.h"
#include "tests/server/blob/fake_s3.h"
#include "tests/testing/postgres_cluster.h"
#include "tests/testing/simulated_clock.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;

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

struct Media {
  const char* store;
  const char* blobs;
};

// Null where PostgreSQL is not installed.
std::unique_ptr<Store> OpenStoreOf(const Media& media, const std::string& directory) {
  const std::string kind = media.store;
  if (kind == "memory") return std::make_unique<MemoryStore>();
  if (kind == "sqlite") {
    auto store = SqliteStore::Open(directory);
    EXPECT_OK(store);
    return *std::move(store);
  }
  if (Cluster() == nullptr) return nullptr;
  static int num_databases = 0;
  const std::string name = absl::StrCat("collected", ++num_databases);
  auto admin = PostgresConnection::Open(Cluster()->UrlOf("postgres"));
  EXPECT_OK(admin.ok() ? (*admin)->Execute("CREATE DATABASE " + name) : admin.status());
  auto store = PostgresStore::Open(Cluster()->UrlOf(name));
  EXPECT_OK(store);
  return *std::move(store);
}

std::unique_ptr<BlobStore> OpenBlobsOf(const Media& media, const std::string& directory,
                                       Clock* clock) {
  const std::string kind = media.blobs;
  if (kind == "memory") return std::make_unique<MemoryBlobStore>(int64_t{1} << 30, clock);
  if (kind == "local") {
    auto blobs = LocalBlobStore::Open(JoinPath(directory, "blobs"));
    EXPECT_OK(blobs);
    return *std::move(blobs);
  }
  S3BlobOptions options;
  options.location = *ParseS3Url(FakeS3::Fresh().Url("prefix"));
  options.credentials = FakeS3::Credentials();
  auto blobs = S3BlobStore::Open(options);
  EXPECT_OK(blobs);
  return *std::move(blobs);
}

class CollectorTest : public ::testing::TestWithParam<Media> {
 protected:
  void SetUp() override {
    spdlog::set_level(spdlog::level::err);
    LWQ_ASSERT_OK_AND_ASSIGN(auto directory, TempDirectory::Create());
    directory_ = std::make_unique<TempDirectory>(std::move(directory));
    store_ = OpenStoreOf(GetParam(), directory_->path());
    if (store_ == nullptr) GTEST_SKIP() << "PostgreSQL is not installed here";
    // Files and objects are dated by the machine's clock: the test's begins there too.
    clock_.JumpWall(absl::Now() - clock_.Now());
    retention_.jobs = absl::Hours(24 * 10);
    blobs_ = std::make_unique<CollectableBlobStore>(
        OpenBlobsOf(GetParam(), directory_->path(), &clock_), retention_.blob_grace, &clock_);
    scheduler_ = std::make_unique<Scheduler>(store_.get(), blobs_.get(), &clock_, &metrics_, &cpu_,
                                             DispatchOptions());
    collector_ = std::make_unique<Collector>(scheduler_.get(), blobs_.get(), retention_);
  }

  v1::BlobRef PutBlob(const std::string& content) {
    const absl::StatusOr<BlobId> id = blobs_->Put(content);
    EXPECT_OK(id);
    v1::BlobRef blob;
    blob.set_sha256(id->sha256);
    blob.set_size_bytes(id->size_bytes);
    return blob;
  }
  // Does not ask the store, which would count as a use.
  bool IsThere(const v1::BlobRef& blob) {
    const absl::StatusOr<std::vector<BlobStat>> all = blobs_->List("", 1000);
    EXPECT_OK(all);
    return std::any_of(all->begin(), all->end(),
                       [&](const BlobStat& b) { return b.id.sha256 == blob.sha256(); });
  }
  void Put(Table table, const std::string& key, const google::protobuf::Message& record) {
    Write write{.table = table};
    write.record = {.key = key, .value = record.SerializeAsString(), .order = scheduler_->NowUs()};
    ASSERT_OK(store_->Commit({write}));
  }
  bool HasRow(Table table, const std::string& key) { return store_->Get(table, key).ok(); }

  // An ended job with events and an artifact of one file.
  v1::BlobRef PutEndedJob(const std::string& id) {
    v1::JobRecord job;
    job.mutable_job()->set_name("jobs/" + id);
    job.mutable_job()->set_state(v1::Job::SUCCEEDED);
    job.mutable_job()->set_last_event_seq(3);
    job.mutable_job()->set_artifact("artifacts/" + id);
    *job.mutable_job()->mutable_end_time() = ToTimestamp(scheduler_->NowUs());
    Put(Table::kJobs, "jobs/" + id, job);
    for (int seq : {1, 2, 3}) Put(Table::kEvents, EventKey("jobs/" + id, seq), v1::JobEvent());
    v1::Artifact artifact;
    artifact.set_name("artifacts/" + id);
    artifact.set_job("jobs/" + id);
    *artifact.mutable_create_time() = ToTimestamp(scheduler_->NowUs());
    const v1::BlobRef file = PutBlob("the artifact of " + id);
    *artifact.add_files()->mutable_blob() = file;
    Put(Table::kArtifacts, artifact.name(), artifact);
    return file;
  }
  v1::CollectGarbageResponse Collect(bool dry_run = false) {
    absl::StatusOr<v1::CollectGarbageResponse> result = collector_->Collect(dry_run);
    EXPECT_OK(result);
    return result.value_or(v1::CollectGarbageResponse());
  }

  SimulatedClock clock_;
  Retention retention_;
  std::unique_ptr<TempDirectory> directory_;
  ServerMetrics metrics_;
  Executor cpu_{"cpu", 1, 10};
  std::unique_ptr<Store> store_;
  std::unique_ptr<CollectableBlobStore> blobs_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<Collector> collector_;
};

TEST_P(CollectorTest, WhatAnyRecordNeedsStaysAndAllElseGoesAfterItsGrace) {
  v1::TaskRecord task;
  *task.mutable_output()->add_blobs()->mutable_blob() = PutBlob("of a task");
  Put(Table::kTasks, "task", task);
  v1::CacheRecord cached;
  *cached.mutable_output()->add_blobs()->mutable_blob() = PutBlob("of a result");
  Put(Table::kCache, "result", cached);
  v1::Dataset dataset;
  *dataset.mutable_blob() = PutBlob("of a dataset");
  Put(Table::kDatasets, "datasets/d", dataset);
  const v1::BlobRef file = PutEndedJob("j");
  const v1::BlobRef nobodys = PutBlob("nobody's");

  EXPECT_EQ(Collect().grace_blobs(), 1) << "its record may be about to be written";
  clock_.Advance(absl::Hours(2));
  const v1::CollectGarbageResponse dry = Collect(/*dry_run=*/true);
  EXPECT_EQ(dry.blobs(), 1);
  EXPECT_EQ(dry.blob_bytes(), nobodys.size_bytes());
  EXPECT_EQ(dry.kept_blobs(), 4);
  EXPECT_TRUE(IsThere(nobodys));
  EXPECT_EQ(Collect().SerializeAsString(), dry.SerializeAsString());
  EXPECT_FALSE(IsThere(nobodys));
  for (const v1::BlobRef& blob :
       {task.output().blobs(0).blob(), cached.output().blobs(0).blob(), dataset.blob(), file}) {
    EXPECT_TRUE(IsThere(blob));
  }
}

TEST_P(CollectorTest, ABlobThatSomebodyAsksForOrReadsOrWritesStays) {
  const v1::BlobRef asked = PutBlob("asked for"), read = PutBlob("read"), old = PutBlob("old");
  const BlobId upload = BlobIdOf("uploaded");
  clock_.Advance(absl::Hours(2));
  EXPECT_TRUE(*blobs_->Has({asked.sha256(), asked.size_bytes()}));
  LWQ_ASSERT_OK_AND_ASSIGN(auto reader, blobs_->OpenRead({read.sha256(), read.size_bytes()}));
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs_->OpenWrite(upload));
  ASSERT_OK(writer->Append("upl"));
  EXPECT_EQ(Collect().blobs(), 1);
  EXPECT_FALSE(IsThere(old));
  clock_.Advance(absl::Hours(2));
  Collect();
  EXPECT_FALSE(IsThere(asked));
  EXPECT_TRUE(IsThere(read)) << "it is still open";
  EXPECT_EQ(*reader->Read(0, 100), "read");
  ASSERT_OK(writer->Append("oaded"));
  ASSERT_OK(writer->Finish());
  EXPECT_TRUE(*blobs_->Has(upload));
}

TEST_P(CollectorTest, RecordsGoWhenTheirTimeIsOver) {
  const v1::BlobRef file = PutEndedJob("old");
  v1::CacheRecord cached;
  *cached.mutable_output()->add_blobs()->mutable_blob() = PutBlob("of a result");
  Put(Table::kCache, "result", cached);
  Put(Table::kRequests, "request", v1::RequestRecord());
  clock_.Advance(absl::Hours(24 * 8));
  v1::JobRecord active;
  active.mutable_job()->set_name("jobs/active");
  active.mutable_job()->set_state(v1::Job::RUNNING);
  Put(Table::kJobs, "jobs/active", active);
  PutEndedJob("young");
  EXPECT_EQ(Collect().requests(), 1);
  EXPECT_FALSE(HasRow(Table::kRequests, "request"));
  EXPECT_TRUE(HasRow(Table::kJobs, "jobs/old"));

  clock_.Advance(absl::Hours(24 * 3));
  EXPECT_EQ(Collect(/*dry_run=*/true).jobs(), 1);
  const v1::CollectGarbageResponse result = Collect();
  EXPECT_EQ(result.jobs(), 1);
  EXPECT_EQ(result.artifacts(), 1);
  EXPECT_EQ(result.blobs(), 1);
  EXPECT_FALSE(IsThere(file));
  for (const char* job : {"jobs/active", "jobs/young"}) EXPECT_TRUE(HasRow(Table::kJobs, job));
  EXPECT_TRUE(HasRow(Table::kArtifacts, "artifacts/young"));
  EXPECT_TRUE(HasRow(Table::kEvents, EventKey("jobs/young", 1)));
  EXPECT_FALSE(HasRow(Table::kArtifacts, "artifacts/old"));
  EXPECT_FALSE(HasRow(Table::kEvents, EventKey("jobs/old", 1)));
  EXPECT_TRUE(HasRow(Table::kCache, "result"));

  clock_.Advance(absl::Hours(24 * 30));
  EXPECT_EQ(Collect().cache_entries(), 1);
  EXPECT_FALSE(IsThere(cached.output().blobs(0).blob()));
}

// A job with no_cache shares nothing: what it leaves is of use to nobody once it has succeeded or
// is gone. One that failed may be retried, and goes on from there.
TEST_P(CollectorTest, ResultsThatOneJobAloneMayUseGoWithIt) {
  PutEndedJob("done");
  PutEndedJob("deleted");
  v1::JobRecord failed;
  failed.mutable_job()->set_name("jobs/failed");
  failed.mutable_job()->set_state(v1::Job::FAILED);
  *failed.mutable_job()->mutable_end_time() = ToTimestamp(scheduler_->NowUs());
  Put(Table::kJobs, "jobs/failed", failed);
  for (const char* job : {"done", "deleted", "failed", ""}) {
    v1::CacheRecord result;
    if (*job != 0) result.set_only_job(absl::StrCat("jobs/", job));
    *result.mutable_output()->add_blobs()->mutable_blob() = PutBlob(absl::StrCat("of ", job));
    Put(Table::kCache, absl::StrCat("result-", job), result);
  }
  ASSERT_OK(DeleteJob(*scheduler_, "jobs/deleted"));
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(Collect().cache_entries(), 2);
  EXPECT_FALSE(HasRow(Table::kCache, "result-done"));
  EXPECT_FALSE(HasRow(Table::kCache, "result-deleted"));
  EXPECT_TRUE(HasRow(Table::kCache, "result-failed"));
  EXPECT_TRUE(HasRow(Table::kCache, "result-"));
}

// What a tenant sent counts for it until nothing of its own names it and nobody asked for long.
TEST_P(CollectorTest, AnUploadIsForgottenWhenNoDatasetOfItsTenantNamesIt) {
  const Caller anna = {.role = kClient, .tenant = "acme"};
  const v1::BlobRef named = PutBlob("in a dataset"), loose = PutBlob("in none");
  for (const v1::BlobRef& blob : {named, loose}) {
    ASSERT_OK(NoteUpload(*scheduler_, anna, {blob.sha256(), blob.size_bytes()}));
  }
  v1::Dataset dataset;
  dataset.set_tenant("acme");
  *dataset.mutable_blob() = named;
  Put(Table::kDatasets, "datasets/d", dataset);
  EXPECT_EQ(scheduler_->tenant_bytes().Of("acme"), named.size_bytes() + loose.size_bytes());
  Collect();
  EXPECT_EQ(scheduler_->tenant_bytes().Of("acme"), named.size_bytes() + loose.size_bytes());
  clock_.Advance(retention_.blob_grace + kUploadNoticed + absl::Seconds(1));
  Collect();
  EXPECT_EQ(scheduler_->tenant_bytes().Of("acme"), named.size_bytes());
  TenantBytes counted;
  ASSERT_OK(counted.Load(*store_));
  EXPECT_EQ(counted.Of("acme"), named.size_bytes());
  EXPECT_TRUE(IsThere(named));
  EXPECT_FALSE(IsThere(loose));
}

// Who is told that what it sent is there has it for an hour from then, however long ago it sent it.
TEST_P(CollectorTest, AnUploadThatIsAskedForStaysItsTenantsForTheGracePeriod) {
  const Caller anna = {.role = kClient, .tenant = "acme"};
  const v1::BlobRef sent = PutBlob("sent");
  const BlobId id{sent.sha256(), sent.size_bytes()};
  ASSERT_OK(NoteUpload(*scheduler_, anna, id));
  const absl::Duration almost = retention_.blob_grace - absl::Seconds(1);
  const auto is_told = [&] {
    const absl::StatusOr<std::vector<BlobId>> missing = MissingFor(*scheduler_, anna, {id});
    EXPECT_OK(missing);
    return missing.ok() && missing->empty();
  };
  for (int i = 0; i < 3; ++i) {
    clock_.Advance(almost);
    EXPECT_TRUE(is_told()) << i;
    Collect();
  }
  // So does one that sends it once more, or names it.
  clock_.Advance(almost);
  ASSERT_OK(NoteUpload(*scheduler_, anna, id));
  blobs_->Has(id).IgnoreError();
  clock_.Advance(almost);
  Collect();
  EXPECT_TRUE(HasRow(Table::kUploads, "acme/" + id.sha256));
  EXPECT_TRUE(IsThere(sent));
  EXPECT_EQ(scheduler_->tenant_bytes().Of("acme"), sent.size_bytes());
  clock_.Advance(retention_.blob_grace + kUploadNoticed + absl::Seconds(1));
  Collect();
  EXPECT_FALSE(is_told());
  EXPECT_EQ(scheduler_->tenant_bytes().Of("acme"), 0);
}

// It is the larger part of what a job leaves, and the smaller part of its work.
TEST_P(CollectorTest, TheFilesOfADeletedArtifactGoAfterADayThoughTheyAreInTheCache) {
  const v1::BlobRef file = PutEndedJob("j");
  v1::CacheRecord assembled, quantized;
  assembled.set_kind("assemble");
  *assembled.mutable_output()->add_blobs()->mutable_blob() = file;
  Put(Table::kCache, "assembled", assembled);
  quantized.set_kind("quantize");
  *quantized.mutable_output()->add_blobs()->mutable_blob() = PutBlob("a unit");
  Put(Table::kCache, "quantized", quantized);
  ASSERT_OK(DeleteJob(*scheduler_, "jobs/j"));
  clock_.Advance(absl::Hours(23));
  Collect();
  EXPECT_TRUE(IsThere(file));
  clock_.Advance(absl::Hours(2));
  Collect();
  EXPECT_FALSE(IsThere(file));
  EXPECT_TRUE(IsThere(quantized.output().blobs(0).blob()));
}

TEST_P(CollectorTest, OfAJobThatEndedLongAgoTheLastEventIsKept) {
  PutEndedJob("old");
  clock_.Advance(absl::Hours(24 * 8));
  PutEndedJob("young");
  for (int round = 0; round < 2; ++round) {
    Collect();
    for (int seq : {1, 2}) {
      EXPECT_FALSE(HasRow(Table::kEvents, EventKey("jobs/old", seq)));
      EXPECT_TRUE(HasRow(Table::kEvents, EventKey("jobs/young", seq)));
    }
    EXPECT_TRUE(HasRow(Table::kEvents, EventKey("jobs/old", 3)));
  }
}

TEST_P(CollectorTest, ADeletedArtifactLeavesItsJobAndAJobThatRunsIsNotDeleted) {
  PutEndedJob("j");
  ASSERT_OK(DeleteArtifact(*scheduler_, "artifacts/j"));
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::JobRecord job, scheduler_->GetJob("jobs/j"));
  EXPECT_EQ(job.job().artifact(), "");
  EXPECT_THAT(DeleteArtifact(*scheduler_, "artifacts/j"), FailsWith("NOT_FOUND", _));
  ASSERT_OK(DeleteJob(*scheduler_, "jobs/j"));
  EXPECT_THAT(DeleteJob(*scheduler_, "jobs/j"), FailsWith("NOT_FOUND", _));
  EXPECT_FALSE(HasRow(Table::kEvents, EventKey("jobs/j", 3)));

  v1::JobRecord active;
  active.mutable_job()->set_name("jobs/active");
  active.mutable_job()->set_state(v1::Job::QUEUED);
  Put(Table::kJobs, "jobs/active", active);
  EXPECT_THAT(DeleteJob(*scheduler_, "jobs/active"), FailsWith("STATE_CONFLICT", _));
}

INSTANTIATE_TEST_SUITE_P(Media, CollectorTest,
                         ::testing::Values(Media{"memory", "memory"}, Media{"sqlite", "local"},
                                           Media{"postgres", "s3"}),
                         [](const auto& info) {
                           return absl::StrCat(info.param.store, "_", info.param.blobs);
                         });

}  // namespace
}  // namespace lwq::testing
