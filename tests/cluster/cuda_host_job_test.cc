// Whole jobs on the CUDA device as host C++ (tests/testing/cuda_host): a real server, a worker
// whose cuda:0 is that device, and one of the CPU that joins them.
#include <signal.h>

#include <functional>
#include <map>
#include <set>
#include <thread>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "client/process.h"
#include "gmock/gmock.h"
#include "tests/cluster/cli.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_model.h"
#include "worker/engine/io/safetensors.h"

namespace lwq::testing {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAre;

class CudaHostJobTest : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    if (IsSkipped()) return;
    if (!FileExists(CudaWorker())) GTEST_SKIP() << CudaWorker() << " is not built";
    ASSERT_OK(WriteTinyModel({.num_layers = 2,
                              .hidden_size = 64,
                              .intermediate_size = 128,
                              .num_heads = 2,
                              .num_kv_heads = 1,
                              .max_positions = 128,
                              .dtype = DType::kBF16},
                             File("model")));
  }
  void TearDown() override {
    for (const auto& [name, pid] : processes_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
  }

  static std::string CudaWorker() { return LWQ_BIN_DIR "/lwq-worker-cuda-host"; }
  std::string Address() const { return "unix:" + File("s"); }

  void Start(const std::string& name, std::vector<std::string> argv) {
    LWQ_ASSERT_OK_AND_ASSIGN(
        processes_[name],
        client::StartProcess(
            {.argv = std::move(argv), .log_path = File(name + ".log"), .die_with_parent = true}));
  }
  void Kill(const std::string& name) {
    ASSERT_EQ(::kill(processes_[name], SIGKILL), 0);
    ASSERT_EQ(::waitpid(processes_[name], nullptr, 0), processes_[name]);
    processes_.erase(name);
  }
  void StartServer() {
    Start("server", {LWQ_BIN_DIR "/lwq-server", "--listen", Address(), "--data-dir", File("server"),
                     "--ready-file", File("ready")});
    WaitFor([&] { return FileExists(File("ready")); });
  }
  void StartWorker(const std::string& name, const std::string& program, const std::string& device) {
    Start(name, {program, "--server", Address(), "--work-dir", File(name), "--worker-id", name,
                 "--device", device, "--threads", "1"});
  }
  static bool WaitFor(const std::function<bool()>& done) {
    const absl::Time end = absl::Now() + absl::Seconds(120);
    while (!done() && absl::Now() < end) absl::SleepFor(absl::Milliseconds(20));
    return done();
  }

  std::string OfServer() const { return "--server " + Address(); }
  // Statistics, costs by KL, GPTQ with refinement, proof, evaluation. By the server of StartServer.
  std::string Quantize(const std::string& out, const std::string& more) const {
    const std::string text = SampleModelPath() + "/held-out.txt";
    return absl::StrCat("quantize ", File("model"),
                        " --budget 6bpw --bits 4,8 --group-size 32 --allocator knapsack"
                        " --compute f32 --calibration ",
                        text, " --calibration-tokens 256 --score-tokens 64 --eval-text ", text,
                        " --eval-tokens 128 --json --out ", File(out), " ", OfServer(), " ", more);
  }
  static std::string JobOf(const CliAnswer& answer) {
    const google::protobuf::Struct json = Json(answer.out);
    return json.fields().at("job").struct_value().fields().at("name").string_value();
  }
  // Who computed the job's tasks, those from the cache as "cache"; without those that copy and
  // compare, which anybody may do, and without the server's own.
  std::set<std::string> ComputedBy(const CliAnswer& answer) const {
    const std::string name = JobOf(answer);
    const google::protobuf::Struct all =
        Json(Lwqctl("tasks " + name + " --json " + OfServer()).out);
    std::set<std::string> by;
    for (const auto& value : all.fields().at("tasks").list_value().values()) {
      const auto& task = value.struct_value().fields();
      const std::string kind = task.at("kind").string_value();
      if (kind == "assemble" || kind == "verify") continue;
      const bool cached = task.count("cached") > 0 && task.at("cached").bool_value();
      const std::string worker = cached ? "cache" : task.at("worker").string_value();
      if (!worker.empty()) by.insert(worker);
    }
    return by;
  }
  std::string LogOf(const std::string& name) const {
    return ReadFile(File(name + ".log"), 16 << 20).value_or("");
  }
  std::string Weights(const std::string& out) const {
    return ReadFile(File(out + "/model.safetensors"), 64 << 20).value_or("");
  }

  std::map<std::string, pid_t> processes_;
};

// How many of the packed codes' bytes of two artifacts differ, of how many; fails where anything
// else about them differs than values.
struct Difference {
  int64_t differing = 0, all = 0;
};
Difference Compare(const std::string& one, const std::string& other) {
  Difference difference;
  const auto a = SafetensorsFile::Open(one), b = SafetensorsFile::Open(other);
  EXPECT_OK(a.status());
  EXPECT_OK(b.status());
  if (!a.ok() || !b.ok()) return difference;
  const auto &of_a = (*a)->header().entries, &of_b = (*b)->header().entries;
  EXPECT_EQ(of_a.size(), of_b.size());
  for (size_t i = 0; i < of_a.size() && i < of_b.size(); ++i) {
    EXPECT_EQ(of_a[i].name, of_b[i].name);
    EXPECT_EQ(of_a[i].shape, of_b[i].shape) << of_a[i].name;
    if (of_a[i].shape != of_b[i].shape || !absl::EndsWith(of_a[i].name, "weight_packed")) continue;
    const auto x = (*a)->View(of_a[i]).bytes, y = (*b)->View(of_b[i]).bytes;
    difference.all += static_cast<int64_t>(x.size());
    for (size_t k = 0; k < x.size(); ++k) difference.differing += x[k] != y[k] ? 1 : 0;
  }
  return difference;
}

TEST_F(CudaHostJobTest, AJobIsTheSameAfterAKillAndNobodysResultsMix) {
  StartServer();
  StartWorker("gpu", CudaWorker(), "cuda:0");
  const CliAnswer whole = Lwqctl(Quantize("whole", ""));
  ASSERT_EQ(whole.code, 0) << whole.err << LogOf("gpu");

  CliAnswer killed;
  std::thread quantize([&] { killed = Lwqctl(Quantize("killed", "--no-cache")); });
  const auto quantizes = [&, before = LogOf("gpu").size()] {
    return LogOf("gpu").find("kind=quantize", before) != std::string::npos;
  };
  EXPECT_TRUE(WaitFor(quantizes)) << LogOf("gpu");
  Kill("gpu");
  StartWorker("gpu", CudaWorker(), "cuda:0");
  quantize.join();
  ASSERT_EQ(killed.code, 0) << killed.err << LogOf("gpu");
  EXPECT_EQ(Weights("killed").size(), Weights("whole").size());
  EXPECT_TRUE(Weights("killed") == Weights("whole"));

  StartWorker("cpu", LWQ_BIN_DIR "/lwq-worker", "cpu");
  const auto are_two = [&] {
    const google::protobuf::Struct all = Json(Lwqctl("workers --json " + OfServer()).out);
    return all.fields().count("workers") > 0 &&
           all.fields().at("workers").list_value().values_size() == 2;
  };
  ASSERT_TRUE(WaitFor(are_two)) << LogOf("cpu");
  // Either may have a job, and then has all of it.
  const CliAnswer either = Lwqctl(Quantize("either", "--no-cache --method rtn --scorer lim"));
  ASSERT_EQ(either.code, 0) << either.err;
  EXPECT_THAT(ComputedBy(either), AnyOf(ElementsAre("cpu"), ElementsAre("gpu")));

  // The server has all results of this very job, of another class of numerics. The job itself has
  // to go, or who asks for the same is given its artifact.
  ASSERT_EQ(Lwqctl("delete job " + JobOf(whole) + " " + OfServer()).code, 0);
  ASSERT_EQ(Lwqctl("worker cordon gpu " + OfServer()).code, 0);
  const CliAnswer by_cpu = Lwqctl(Quantize("by-cpu", ""));
  ASSERT_EQ(by_cpu.code, 0) << by_cpu.err;
  EXPECT_THAT(ComputedBy(by_cpu), ElementsAre("cpu"));
  const Difference difference =
      Compare(File("whole/model.safetensors"), File("by-cpu/model.safetensors"));
  EXPECT_GT(difference.all, 0);
  // In F32 the two add in other orders, the CPU in one that depends on its kind: a value in the
  // middle between two codes, one in about a million, may go to the other, and its row with it.
  EXPECT_LE(difference.differing, difference.all / 50) << "of " << difference.all << " bytes";
}

}  // namespace
}  // namespace lwq::testing
