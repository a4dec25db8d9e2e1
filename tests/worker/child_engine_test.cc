// A worker's tasks in a process of their own: the same results, and what becomes of a task whose
// process ends.
#include "worker/child_engine.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "gmock/gmock.h"
#include "tests/testing/memory_group.h"
#include "tests/testing/shared_data.h"
#include "tests/testing/status_matchers.h"
#include "worker/child_end.h"
#include "worker/local_engine.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::HasSubstr;

// Blobs of a directory, by digest.
class DirectoryBlobs final : public BlobAccess {
 public:
  explicit DirectoryBlobs(std::string directory) : directory_(std::move(directory)) {
    EXPECT_OK(MakeDirectories(ScratchDirectory()));
  }
  absl::StatusOr<std::string> Fetch(const v1::BlobRef& blob) override {
    const std::string path = JoinPath(directory_, blob.sha256());
    if (FileExists(path)) return path;
    return Failure(absl::StatusCode::kNotFound, "BLOB_MISSING", "no such blob");
  }
  absl::StatusOr<v1::BlobRef> Store(const std::string& path, const std::string&) override {
    absl::StatusOr<std::string> content = ReadFile(path, 1 << 30);
    if (!content.ok()) return content.status();
    v1::BlobRef blob;
    blob.set_sha256(Sha256Hex(*content));
    blob.set_size_bytes(static_cast<int64_t>(content->size()));
    if (absl::Status moved = RenameFile(path, JoinPath(directory_, blob.sha256())); !moved.ok()) {
      return moved;
    }
    return blob;
  }
  std::string ScratchDirectory() const override { return JoinPath(directory_, "scratch"); }

  v1::BlobRef Put(const std::string& content) {
    v1::BlobRef blob;
    blob.set_sha256(Sha256Hex(content));
    blob.set_size_bytes(static_cast<int64_t>(content.size()));
    EXPECT_OK(WriteFileAtomically(JoinPath(directory_, blob.sha256()), content));
    return blob;
  }

 private:
  const std::string directory_;
};

class ChildEngineTest : public ::testing::Test {
 protected:
  ChildEngineTest() : directory_(*TempDirectory::Create()), blobs_(directory_.path()) {
    spdlog::set_level(spdlog::level::off);
  }
  void SetUp() override {
    if (!FileExists(program_)) GTEST_SKIP() << program_ << " is not built";
  }
  void TearDown() override { ::unsetenv("LWQ_FAILPOINTS"); }

  absl::StatusOr<std::unique_ptr<ChildEngine>> Start(const std::string& failpoints = "",
                                                     const std::string& device = "cpu") {
#ifdef NDEBUG
    if (!failpoints.empty()) return absl::UnimplementedError("this build has no failpoints");
#endif
    ::setenv("LWQ_FAILPOINTS", failpoints.c_str(), 1);
    return ChildEngine::Start(
        {.program = program_, .device = {.device = device, .num_threads = 1}, .log_level = "off"});
  }
  // One that reads a blob, writes to its scratch directory and computes.
  v1::Lease Evaluate() {
    v1::Lease lease;
    lease.set_task("e");
    v1::EvaluateTask& task = *lease.mutable_spec()->mutable_evaluate();
    task.set_subject("model");
    task.set_directory(SampleModelPath());
    task.set_dataset_name("datasets/d");
    *task.mutable_dataset() = blobs_.Put(*ReadFile(SampleModelPath() + "/held-out.txt", 1 << 20));
    task.set_dataset_kind(v1::Dataset::TEXT);
    task.set_text_tokens(256);
    task.set_sequence_length(128);
    task.set_bos("tokenizer");
    task.set_compute("f32");
    return lease;
  }
  v1::Lease Ingest() const {
    v1::Lease lease;
    lease.set_task("t");
    lease.mutable_spec()->mutable_ingest()->set_directory(SampleModelPath());
    return lease;
  }
  absl::StatusOr<v1::TaskOutput> Run(TaskEngine& engine, const v1::Lease& lease) {
    if (absl::Status ready = engine.Prepare(lease.spec()); !ready.ok()) return ready;
    TaskRun run = {.lease = &lease, .blobs = &blobs_};
    run.progress = [&](double, const std::string&) {
      ++num_progress_;
      return progress_;
    };
    return engine.Run(run);
  }
  // Of /proc, whose files say that they are empty.
  static std::string OfProcess(int pid, const std::string& file) {
    std::ifstream stream(absl::StrCat("/proc/", pid, "/", file));
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  static std::string StatusLine(int pid, const std::string& name) {
    const std::string text = OfProcess(pid, "status");
    const size_t at = text.find("\n" + name + ":");
    if (at == std::string::npos) return "";
    return text.substr(at + 1, text.find('\n', at + 1) - at - 1);
  }

  const std::string program_ = LWQ_BIN_DIR "/lwq-worker";
  TempDirectory directory_;
  DirectoryBlobs blobs_;
  absl::Status progress_;
  int num_progress_ = 0;
};

TEST_F(ChildEngineTest, TheResultIsThatOfTheWorkersOwnProcess) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto device, MakeDevice({.device = "cpu", .num_threads = 1}));
  LocalEngine local(device.get(), /*measures=*/false);
  LWQ_ASSERT_OK_AND_ASSIGN(const auto child, Start());
  EXPECT_EQ(child->device().name, local.device().name);
  EXPECT_EQ(child->device().numerics_class, local.device().numerics_class);
  EXPECT_GT(child->device().operations_per_second, 0);
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::TaskOutput expected, Run(local, Ingest()));
  const int told = std::exchange(num_progress_, 0);
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::TaskOutput output, Run(*child, Ingest()));
  EXPECT_EQ(output.SerializeAsString(), expected.SerializeAsString());
  EXPECT_EQ(num_progress_, told);

  // And of one that computes: the same bits.
  const v1::Lease evaluate = Evaluate();
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::TaskOutput here, Run(local, evaluate));
  const int pid = child->pid();
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::TaskOutput there, Run(*child, evaluate));
  EXPECT_EQ(here.evaluate().SerializeAsString(), there.evaluate().SerializeAsString());
  EXPECT_EQ(child->pid(), pid) << "one process for all of them";
}

TEST_F(ChildEngineTest, ItsProcessHasFewRights) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto child, Start());
  EXPECT_EQ(StatusLine(child->pid(), "NoNewPrivs"), "NoNewPrivs:\t1");
  EXPECT_EQ(StatusLine(child->pid(), "Seccomp"), "Seccomp:\t2");
  EXPECT_EQ(OfProcess(child->pid(), "oom_score_adj"), "900\n");
}

TEST_F(ChildEngineTest, FailuresKeepTheirReasons) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto child, Start());
  v1::Lease lease;
  lease.mutable_spec()->mutable_ingest()->set_directory(directory_.path() + "/none");
  LWQ_ASSERT_OK_AND_ASSIGN(const auto device, MakeDevice({.device = "cpu", .num_threads = 1}));
  LocalEngine local(device.get(), /*measures=*/false);
  const absl::Status expected = Run(local, lease).status();
  const absl::Status status = Run(*child, lease).status();
  EXPECT_EQ(status.code(), expected.code());
  EXPECT_EQ(ReasonOf(status), ReasonOf(expected));
  EXPECT_EQ(status.message(), expected.message());
  // What the worker says to the task as well.
  progress_ = absl::CancelledError("the job was cancelled");
  EXPECT_TRUE(absl::IsCancelled(Run(*child, Ingest()).status()));
  progress_ = Failure(absl::StatusCode::kAborted, "LEASE_LOST", "another worker has the task");
  EXPECT_THAT(Run(*child, Ingest()), FailsWith("LEASE_LOST", _));
  EXPECT_THAT(Start("", "no-such-device").status(), FailsWith("DEVICE_UNKNOWN", _));
}

// The worker goes on, with another process.
TEST_F(ChildEngineTest, ATaskThatCrashesFailsAlone) {
  auto started = Start("child.task_begun=segv:2");
  if (absl::IsUnimplemented(started.status())) GTEST_SKIP() << started.status();
  LWQ_ASSERT_OK_AND_ASSIGN(const auto child, std::move(started));
  ASSERT_OK(Run(*child, Ingest()));
  const int first = child->pid();
  EXPECT_THAT(Run(*child, Ingest()),
              FailsWith("TASK_CRASHED", HasSubstr("signal 11 (Segmentation fault)")));
  EXPECT_EQ(child->pid(), 0);
  ASSERT_OK(Run(*child, Ingest()));
  EXPECT_NE(child->pid(), first);
}

TEST_F(ChildEngineTest, OneThatIsKilledInItsTaskOrBetweenTwoIsReplaced) {
  auto started = Start("child.task_begun=delay:2s");
  if (absl::IsUnimplemented(started.status())) GTEST_SKIP() << started.status();
  LWQ_ASSERT_OK_AND_ASSIGN(const auto child, std::move(started));
  ASSERT_OK(child->Prepare(Ingest().spec()));
  std::thread killer([pid = child->pid()] {
    absl::SleepFor(absl::Milliseconds(300));
    ::kill(pid, SIGKILL);
  });
  EXPECT_THAT(Run(*child, Ingest()), FailsWith("TASK_CRASHED", HasSubstr("signal 9 (Killed)")));
  killer.join();
  ::setenv("LWQ_FAILPOINTS", "", 1);
  ASSERT_OK(Run(*child, Ingest()));
  ::kill(child->pid(), SIGKILL);
  absl::SleepFor(absl::Milliseconds(300));
  child->Rest();  // does not notice
  EXPECT_OK(Run(*child, Ingest()));
}

// By the kernel, for want of memory: the task's failure, and the next one is done.
TEST_F(ChildEngineTest, OneThatTheKernelKillsForMemoryFailsAsThatAndIsReplaced) {
  MemoryGroup group(1 << 20);
  if (!group.exists() || NumOomKills() < 0) GTEST_SKIP() << "no control group can be made here";
  LWQ_ASSERT_OK_AND_ASSIGN(const auto child, Start());
  ASSERT_OK(Run(*child, Ingest()));
  ASSERT_TRUE(group.Add(child->pid()));
  EXPECT_THAT(Run(*child, Evaluate()), FailsWith("HOST_OOM", HasSubstr("no memory left")));
  EXPECT_EQ(child->pid(), 0);
  EXPECT_OK(Run(*child, Evaluate()));
}

TEST_F(ChildEngineTest, ItsProcessEndsWithIt) {
  LWQ_ASSERT_OK_AND_ASSIGN(auto child, Start());
  const int pid = child->pid();
  ASSERT_EQ(::kill(pid, 0), 0);
  ASSERT_EQ(::kill(pid, SIGTERM), 0);
  EXPECT_OK(Run(*child, Ingest())) << "the worker alone ends it";
  EXPECT_EQ(child->pid(), pid);
  child.reset();
  EXPECT_NE(::kill(pid, 0), 0);
}

TEST_F(ChildEngineTest, NothingIsSentThatTheTaskDidNotMake) {
  const std::string scratch = blobs_.ScratchDirectory();
  const std::string made = JoinPath(scratch, "made"), secret = directory_.path() + "/secret";
  ASSERT_OK(WriteFileAtomically(made, "x"));
  ASSERT_OK(WriteFileAtomically(secret, "x"));
  EXPECT_OK(CheckInScratch(made, scratch));
  const std::string link = JoinPath(scratch, "link");
  ASSERT_EQ(::symlink(secret.c_str(), link.c_str()), 0);
  for (const std::string& path :
       {secret, link, scratch + "/../secret", scratch, scratch + "/none", std::string()}) {
    EXPECT_THAT(CheckInScratch(path, scratch), FailsWith("PATH_NOT_ALLOWED", _)) << path;
  }
  EXPECT_THAT(ChildEngine::Start({.program = "/bin/false"}).status(),
              FailsWith("CHILD_DIED", HasSubstr("ended with code 1")));
}

}  // namespace
}  // namespace lwq::testing
