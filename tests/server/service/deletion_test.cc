// Deleting by RPC. Over every store: collector_test.cc.
#include "server/service/deletion.h"

#include <thread>

#include "absl/time/clock.h"
#include "server/blob/memory_blob_store.h"
#include "tests/server/service/server_fixture.h"
#include "tests/testing/failing_blob_store.h"

namespace lwq::testing {
namespace {

using ::testing::_;

class DeletionTest : public ServerTest {
 protected:
  // The server's own, which is due by then, may be on its way.
  absl::Status Collect(v1::CollectGarbageResponse* collected) {
    for (;;) {
      absl::Status status = Call(*stubs_->admin, &v1::AdminService::Stub::CollectGarbage,
                                 v1::CollectGarbageRequest(), collected);
      if (ReasonOf(status) != "COLLECTION_RUNNING") return status;
      absl::SleepFor(absl::Milliseconds(10));
    }
  }
};

class SlowBlobs : public FailingBlobStore {
 public:
  using FailingBlobStore::FailingBlobStore;
  absl::Status Delete(const BlobId& id) override {
    absl::SleepFor(absl::Milliseconds(10));
    return FailingBlobStore::Delete(id);
  }
};

TEST_F(DeletionTest, ADeletedJobIsGoneForEverybody) {
  {
    ScriptedWorker worker(server_->address(), "first");
    AddModel();
  }
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job job, Submit(JobRequest(5.0)));
  v1::DeleteJobRequest request;
  request.set_name(job.name());
  request.set_request_id("01234567-89ab-cdef-0123-456789abcdef");
  v1::DeleteJobResponse response;
  const auto erase = [&] {
    return Call(*stubs_->jobs, &v1::JobService::Stub::DeleteJob, request, &response);
  };
  EXPECT_THAT(erase(), FailsWith("STATE_CONFLICT", _)) << "it is active";
  {
    ScriptedWorker worker(server_->address(), "w");
    EXPECT_OK(Watch(job.name()));
  }
  const std::string artifact = GetJob(job.name()).artifact();
  EXPECT_OK(erase());
  EXPECT_OK(erase()) << "the same request, sent again";
  EXPECT_THAT(Watch(job.name()), FailsWith("NOT_FOUND", _));
  v1::GetArtifactRequest get;
  get.set_name(artifact);
  v1::Artifact gone;
  EXPECT_THAT(Call(*stubs_->artifacts, &v1::ArtifactService::Stub::GetArtifact, get, &gone),
              FailsWith("NOT_FOUND", _));
  // Its blobs go, but not what another job finds in the cache.
  clock_.Advance(absl::Hours(2));
  v1::CollectGarbageResponse collected;
  EXPECT_OK(Collect(&collected));
  EXPECT_GT(collected.kept_blobs(), 0);
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job again, Submit(JobRequest(5.0)));
  EXPECT_GT(again.progress().tasks_cached(), 0);
}

// The next leader waits for as long as this one takes to end.
TEST_F(DeletionTest, AServerThatIsToStopDoesNotWaitForTheRestOfACollection) {
  constexpr int kBlobs = 1000;
  MemoryBlobStore blobs(int64_t{1} << 30, &clock_);
  for (int i = 0; i < kBlobs; ++i) ASSERT_OK(blobs.Put(absl::StrCat(i)));
  clock_.Advance(absl::Hours(2));
  server_.reset();
  FaultPlan no_faults([](int) { return Fault::kNone; });
  ServerParts parts;
  parts.store = std::make_unique<MemoryStore>();
  parts.blobs = std::make_unique<SlowBlobs>(&blobs, &no_faults);
  LWQ_ASSERT_OK_AND_ASSIGN(server_, Server::Start(options_, std::move(parts)));
  Stubs stubs(server_->address());
  absl::Status collected;
  std::thread caller([&] {
    v1::CollectGarbageResponse response;
    collected = Call(*stubs.admin, &v1::AdminService::Stub::CollectGarbage,
                     v1::CollectGarbageRequest(), &response);
  });
  while (blobs.total_count() >= kBlobs) absl::SleepFor(absl::Milliseconds(1));
  server_->Drain();
  caller.join();
  EXPECT_THAT(collected, FailsWith("DRAINING", _));
  EXPECT_GT(blobs.total_count(), kBlobs / 2);
}

}  // namespace
}  // namespace lwq::testing
