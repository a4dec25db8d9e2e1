// Deleting by RPC. Over every store: collector_test.cc.
#include "server/service/deletion.h"

#include "tests/server/service/server_fixture.h"

namespace lwq::testing {
namespace {

using ::testing::_;

using DeletionTest = ServerTest;

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
  ASSERT_OK(Call(*stubs_->admin, &v1::AdminService::Stub::CollectGarbage,
                 v1::CollectGarbageRequest(), &collected));
  EXPECT_GT(collected.kept_blobs(), 0);
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job again, Submit(JobRequest(5.0)));
  EXPECT_GT(again.progress().tasks_cached(), 0);
}

}  // namespace
}  // namespace lwq::testing
