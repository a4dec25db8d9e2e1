// A server or worker dies at each failpoint in turn and is started again: every job ends, its
// artifact is the one that it has in peace, and no task is done twice.
#include <stdlib.h>

#include <filesystem>
#include <map>
#include <memory>
#include <regex>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/hash.h"
#include "base/rpc/channel.h"
#include "gmock/gmock.h"
#include "proto/lwq/v1/job_service.grpc.pb.h"
#include "tests/cluster/cli.h"
#include "tests/failpoints/kept_process.h"
#include "tests/server/blob/fake_s3.h"
#include "tests/testing/postgres_cluster.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_model.h"

namespace lwq::testing {
namespace {

// What is done while the process is to die.
enum class During {
  kJob,
  kJobOfNewBlobs,
  kJobOfColdWorker,
  kJobOfSlowReports,  // each long enough for heartbeats
  kRegistration,
  kNothing,
  kCollection,
  kRelease,
  kLargeUpload,
};

struct Point {
  const char* name;
  int at = 1;  // the how manieth time that it is passed
  During during = During::kJob;
};

constexpr Point kOfServer[] = {
    {"commit.before", 1},
    {"commit.before", 6},
    {"commit.after", 2},
    {"commit.after", 9},
    {"submit.before_answer"},
    {"register.before_answer", 1, During::kRegistration},
    {"lease.before_answer", 2},
    {"complete.before_commit", 2},
    {"complete.before_answer", 2},
    {"plan.before_commit"},
    {"artifact.before_commit"},
    {"artifact.after_commit"},
    {"upload.before_answer", 1, During::kJobOfNewBlobs},
    {"download.before_chunk", 2},
    {"watch.before_event", 3},
    {"start.loaded"},
    {"release.before_answer", 1, During::kRelease},
    {"collect.before_delete", 2, During::kCollection},
    {"collect.after_delete", 1, During::kCollection},
};
constexpr Point kOfFilesServer[] = {
    {"blob.before_write", 2, During::kJobOfNewBlobs},
    {"blob.before_sync", 2, During::kJobOfNewBlobs},
    {"blob.before_rename", 3, During::kJobOfNewBlobs},
    {"blob.after_rename", 2, During::kJobOfNewBlobs},
    {"sqlite.before_commit", 4},
    {"sqlite.after_commit", 5},
};
constexpr Point kOfSharedServer[] = {
    {"postgres.before_commit", 4},
    {"postgres.after_commit", 5},
    {"leader.before_renewal", 1, During::kNothing},
    {"takeover.before_commit"},
    {"takeover.after_commit"},
    {"s3.before_put", 2, During::kJobOfNewBlobs},
    {"s3.after_put", 2, During::kJobOfNewBlobs},
    {"s3.part_sent", 1, During::kLargeUpload},
    {"s3.part_noted", 1, During::kLargeUpload},
    {"s3.before_finish", 1, During::kLargeUpload},
    {"s3.after_finish", 1, During::kLargeUpload},
};
constexpr Point kOfWorker[] = {
    {"worker.leased", 2},
    {"worker.before_upload", 2},
    {"worker.upload_chunk", 1, During::kJobOfNewBlobs},
    {"worker.after_upload", 2},
    {"worker.before_report", 3},
    {"worker.after_report", 2},
    {"worker.before_heartbeat", 1, During::kJobOfSlowReports},
    {"worker.before_keeping_download", 1, During::kJobOfColdWorker},
};
// Where tasks' own processes end, and the worker goes on: tests/cluster/task_child_test.cc.
constexpr Point kOfTaskChild[] = {{"child.task_begun"}};
// Before there is anything to lose: of the first start of all.
constexpr Point kOfFirstStart[] = {{"migrate.before_commit"}, {"migrate.after_commit"}};

std::string TextOf(const Point& point) { return absl::StrCat(point.name, "=crash:", point.at); }

class FailpointsTest : public CliTest {
 protected:
  void SetUp() override {
#ifdef NDEBUG
    GTEST_SKIP() << "this build has no failpoints";
#endif
    CliTest::SetUp();
  }

  std::unique_ptr<KeptProcess> StartServer(const std::string& name, const std::string& listen,
                                           const std::vector<std::string>& places,
                                           const std::string& failpoints) const {
    std::vector<std::string> command = {LWQ_BIN_DIR "/lwq-server",
                                        "--listen",
                                        listen,
                                        "--data-dir",
                                        File(name),
                                        "--lease-ttl",
                                        "2",
                                        "--heartbeat",
                                        "0.05",
                                        "--blob-grace",
                                        "1",
                                        "--keep-cache",
                                        "0.00001",
                                        "--keep-jobs",
                                        "0.00001"};
    command.insert(command.end(), places.begin(), places.end());
    return std::make_unique<KeptProcess>(command, File(name + ".log"), failpoints);
  }

  // A worker, the model, and how a job ends in peace.
  void Begin() {
    worker_ = std::make_unique<KeptProcess>(
        std::vector<std::string>{LWQ_BIN_DIR "/lwq-worker", "--server", address_, "--threads", "1",
                                 "--work-dir", File("worker"), "--worker-id", "w"},
        File("worker.log"), "");
    ASSERT_OK(WriteTinyModel({.hidden_size = 64, .intermediate_size = 128}, File("model")));
    ASSERT_NE(Insist(absl::StrCat("model add ", File("model"), " --id m")), "gave up");
    RunJob();
    peace_ = digests_;
    ASSERT_THAT(peace_, ::testing::Contains(::testing::Key("model.safetensors")));
  }

  // What lwqctl prints in the end: commands other than watch do not wait for a server that is away.
  std::string Insist(const std::string& words) const {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    CliAnswer answer;
    do {
      answer = Lwqctl(absl::StrCat(words, " --server ", address_));
      if (answer.code == 0) return answer.out;
      absl::SleepFor(absl::Milliseconds(100));
    } while (absl::Now() < deadline);
    ADD_FAILURE() << words << ": " << answer.err;
    return "gave up";
  }

  // Leaves the digests of its artifact and how often each task was done.
  void RunJob() {
    const int number = ++num_jobs_;
    const std::string job = absl::StrCat("j", number);
    Insist(
        absl::StrCat("submit m --budget 4.5bpw --method rtn --scorer lim --allocator two-level"
                     " --no-eval --no-cache --calibration ",
                     SampleModelPath(), "/held-out.txt --calibration-tokens 512 --job-id ", job,
                     absl::StrFormat(" --request-id 00000000-0000-4000-8000-%012d", number)));
    Insist("watch " + job);
    CountDone("jobs/" + job);
    Insist(absl::StrCat("artifact get jobs/", job, " --out ", File(job)));
    digests_.clear();
    for (const std::string& name : ListDirectory(File(job)).value_or(std::vector<std::string>())) {
      // They are of this job, not of its model.
      if (name == "lwq-report.json" || name == "README.md") continue;
      digests_[name] = Sha256HexOfFile(JoinPath(File(job), name)).value_or("unreadable");
    }
  }

  // From every event that the job has had.
  void CountDone(const std::string& job) {
    const auto stub = v1::JobService::NewStub(MakeChannel(address_));
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    grpc::Status status;
    do {
      done_.clear();
      grpc::ClientContext context;
      v1::WatchJobRequest request;
      request.set_name(job);
      request.set_from_first_event(true);
      const auto reader = stub->WatchJob(&context, request);
      v1::JobEvent event;
      while (reader->Read(&event)) {
        if (event.task().state() == v1::TaskEvent::DONE) ++done_[event.task().task()];
      }
      status = reader->Finish();
    } while (!status.ok() && absl::Now() < deadline);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }

  void ExpectJobAsInPeace() {
    RunJob();
    EXPECT_EQ(digests_, peace_);
    EXPECT_FALSE(done_.empty());
    for (const auto& [task, times] : done_) EXPECT_EQ(times, 1) << task;
  }

  // SIGTERM while the worker has a task, which it gives back.
  void StopWorkerInATask() {
    const std::string log = File("worker.log");
    worker_->Restart("worker.leased=delay:1s");
    const int64_t before = FileSize(log).value_or(0);
    std::thread job([this] { ExpectJobAsInPeace(); });
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while (absl::Now() < deadline) {
      const std::string text = ReadFile(log, 64 << 20).value_or("");
      if (text.find("begins ", static_cast<size_t>(before)) != std::string::npos) break;
      absl::SleepFor(absl::Milliseconds(20));
    }
    worker_->Terminate("");
    job.join();
  }

  void Upload(const std::string& name) {
    std::string text;
    while (text.size() < (33u << 20)) absl::StrAppend(&text, name, " has ", text.size(), "\n");
    const std::string path = File(name + ".txt");
    ASSERT_OK(WriteFileAtomically(path, text));
    Insist("dataset add " + path);
  }

  static void WaitUntilFired(const KeptProcess& process) {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while (process.fired() == 0 && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(10));
  }

  void Die(KeptProcess& process, const Point& point) {
    SCOPED_TRACE(TextOf(point));
    const absl::Time start = absl::Now();
    const bool of_new_blobs = point.during == During::kJobOfNewBlobs;
    // So long are jobs, results and blobs kept here.
    if (of_new_blobs || point.during == During::kCollection) absl::SleepFor(absl::Seconds(1));
    if (of_new_blobs) Insist("gc");
    if (point.during == During::kJobOfColdWorker) {
      ASSERT_OK(RemoveAll(File("worker/blobs")));
    }
    process.Restart(TextOf(point) + (point.during == During::kJobOfSlowReports
                                         ? ";worker.before_report=delay:1s"
                                         : ""));
    if (point.during == During::kCollection) Insist("gc");
    if (point.during == During::kRegistration) worker_->Restart("");
    if (point.during == During::kNothing) WaitUntilFired(process);
    if (point.during == During::kLargeUpload) Upload(point.name);
    if (point.during == During::kRelease) {
      StopWorkerInATask();
    } else {
      ExpectJobAsInPeace();
    }
    EXPECT_EQ(process.fired(), 1) << "the point was never passed";
    EXPECT_EQ(process.num_crashes() + worker_->num_crashes(), 0);
    std::printf("%-40s %.1f s\n", TextOf(point).c_str(),
                absl::ToDoubleSeconds(absl::Now() - start));
    std::fflush(stdout);
  }

  std::string address_;
  std::unique_ptr<KeptProcess> server_, worker_;
  int num_jobs_ = 0;
  std::map<std::string, int> done_;
  std::map<std::string, std::string> digests_, peace_;
};

TEST_F(FailpointsTest, OverSqliteAndAFolder) {
  address_ = "unix:" + File("s");
  for (const Point& point : kOfFirstStart) {
    server_ = StartServer("server", address_, {}, TextOf(point));
    WaitUntilFired(*server_);
    ASSERT_EQ(server_->fired(), 1) << point.name;
  }
  Begin();
  for (const Point& point : kOfServer) Die(*server_, point);
  for (const Point& point : kOfFilesServer) Die(*server_, point);
  for (const Point& point : kOfWorker) Die(*worker_, point);
}

TEST_F(FailpointsTest, OverPostgresAndS3) {
  const auto postgres = PostgresCluster::Start();
  if (postgres == nullptr) GTEST_SKIP() << "PostgreSQL is not installed here";
  const FakeS3& s3 = FakeS3::Fresh();
  ::setenv("AWS_ACCESS_KEY_ID", FakeS3::Credentials().key_id.c_str(), 1);
  ::setenv("AWS_SECRET_ACCESS_KEY", FakeS3::Credentials().secret.c_str(), 1);
  ::setenv("AWS_SESSION_TOKEN", FakeS3::Credentials().session_token.c_str(), 1);
  const std::vector<std::string> places = {"--store", postgres->UrlOf("postgres"), "--blobs",
                                           s3.Url("lwq")};
  address_ = "unix:" + File("s");
  server_ = StartServer("server", address_, places, "");
  Begin();
  for (const Point& point : kOfSharedServer) Die(*server_, point);
}

// A point that is added without a line above is never seen to do no harm.
TEST_F(FailpointsTest, EveryPointOfTheSourcesIsTried) {
  std::set<std::string> tried, there;
  const auto add = [&](const auto& points) {
    for (const Point& point : points) tried.insert(point.name);
  };
  add(kOfServer);
  add(kOfFilesServer);
  add(kOfSharedServer);
  add(kOfWorker);
  add(kOfTaskChild);
  add(kOfFirstStart);
  const std::regex call("Failpoint\\(\"([a-z0-9_.]+)\"\\)");
  for (const char* folder : {"server", "worker"}) {
    const auto files =
        std::filesystem::recursive_directory_iterator(LWQ_SOURCE_DIR + std::string("/") + folder);
    for (const auto& file : files) {
      if (file.path().extension() != ".cc") continue;
      const std::string text = ReadFile(file.path(), 1 << 20).value_or("");
      for (auto it = std::sregex_iterator(text.begin(), text.end(), call);
           it != std::sregex_iterator(); ++it) {
        there.insert((*it)[1]);
      }
    }
  }
  EXPECT_EQ(tried, there);
}

}  // namespace
}  // namespace lwq::testing
