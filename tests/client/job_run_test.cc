// Which job a command takes for its own, and which it may cancel.
#include "client/job_run.h"

#include <string>

#include "tests/client/fake_service.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

using ::testing::ElementsAre;

v1::Job JobWith(const std::string& name, const std::string& label, v1::Job::State state) {
  v1::Job job;
  job.set_name(name);
  job.set_state(state);
  (*job.mutable_labels())[kRequestLabel] = label;
  v1::QuantizeSpec& spec = *job.mutable_spec()->mutable_quantize();
  spec.set_model("models/m");
  spec.set_method("gptq");
  return job;
}

v1::JobSpec Asked() {
  v1::JobSpec spec;
  spec.mutable_quantize()->set_model("models/m");  // the method is the server's default
  return spec;
}

TEST(JobRunTest, AJobIsFoundByItsLabelAndItsSpec) {
  FakeServer server;
  v1::Job other = JobWith("jobs/planted", "d", v1::Job::SUCCEEDED);
  other.mutable_spec()->mutable_quantize()->set_no_act_order(true);  // what was not asked
  server.jobs.listed = {other, JobWith("jobs/failed", "d", v1::Job::FAILED),
                        JobWith("jobs/same", "d", v1::Job::RUNNING)};
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job found,
                           FindOrSubmit(server.client(), Asked(), "d", /*reuse=*/true));
  EXPECT_EQ(found.name(), "jobs/same");
  EXPECT_TRUE(server.jobs.request_ids.empty());
}

TEST(JobRunTest, AnotherJobUnderTheSameLabelIsNotTaken) {
  FakeServer server;
  v1::Job other = JobWith("jobs/planted", "d", v1::Job::SUCCEEDED);
  other.mutable_spec()->mutable_quantize()->set_method("rtn");
  server.jobs.listed = {other};
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Job made,
                           FindOrSubmit(server.client(), Asked(), "d", /*reuse=*/true));
  EXPECT_EQ(made.name(), "jobs/j-1");
}

TEST(JobRunTest, LeftoversThatACommandWaitsForAreSpared) {
  FakeServer server;
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory run, TempDirectory::Create());
  server.jobs.listed = {JobWith("jobs/mine", "d", v1::Job::QUEUED),
                        JobWith("jobs/followed", "e", v1::Job::QUEUED),
                        JobWith("jobs/left", "f", v1::Job::QUEUED), v1::Job()};
  const Following somebody(run.path(), "e");
  CancelLeftovers(server.client(), run.path(), "d");
  // Once for each state: the fake server lists the same whatever is asked.
  EXPECT_THAT(server.jobs.cancelled, ElementsAre("jobs/left", "jobs/left"));
}

}  // namespace
}  // namespace lwq::client
