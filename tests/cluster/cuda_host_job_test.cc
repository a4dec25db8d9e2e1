// Whole jobs on the CUDA device as host C++ (tests/testing/cuda_host): a real server, a worker
// whose cuda:0 is that device, and the same jobs by the CPU beside them.
#include <signal.h>

#include <functional>
#include <map>
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

using ::testing::HasSubstr;

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

  // Statistics, costs by KL, GPTQ with refinement, proof, evaluation. By the embedded pair unless
  // `more` names a server.
  std::string Quantize(const std::string& out, const std::string& more) const {
    const std::string text = SampleModelPath() + "/held-out.txt";
    return absl::StrCat("quantize ", File("model"),
                        " --budget 6bpw --bits 4,8 --group-size 32 --allocator knapsack"
                        " --compute f32 --calibration ",
                        text, " --calibration-tokens 256 --score-tokens 64 --eval-text ", text,
                        " --eval-tokens 128 --json --out ", File(out), " ", more);
  }
  std::string ByGpu() const { return "--server " + Address(); }
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

TEST_F(CudaHostJobTest, AJobIsTheSameAfterAKillAndTheCpusOwn) {
  StartServer();
  StartWorker("gpu", CudaWorker(), "cuda:0");
  const CliAnswer whole = Lwqctl(Quantize("whole", ByGpu()));
  ASSERT_EQ(whole.code, 0) << whole.err << LogOf("gpu");

  CliAnswer killed;
  std::thread quantize([&] { killed = Lwqctl(Quantize("killed", ByGpu() + " --no-cache")); });
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

  // By a server and a worker of their own, so nothing that the GPU made is at hand.
  const CliAnswer by_cpu = Lwqctl(Quantize("by-cpu", "--threads 1"));
  ASSERT_EQ(by_cpu.code, 0) << by_cpu.err;
  const Difference difference =
      Compare(File("whole/model.safetensors"), File("by-cpu/model.safetensors"));
  EXPECT_GT(difference.all, 0);
  // In F32 the two add in other orders, the CPU in one that depends on its kind: a value in the
  // middle between two codes, one in about a million, may go to the other, and its row with it.
  EXPECT_LE(difference.differing, difference.all / 50) << "of " << difference.all << " bytes";
}

}  // namespace
}  // namespace lwq::testing
