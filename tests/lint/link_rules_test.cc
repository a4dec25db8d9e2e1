// The server and lwqctl carry no kernels: they start fast, run on small machines, and cannot
// compute what a worker must. The planner library is the exception.
#include "base/file.h"
#include "gtest/gtest.h"
#include "tests/lint/source_tree.h"

namespace lwq::testing {
namespace {

// Names of shared libraries that only the engine needs, and of the engine's device class as
// run-time type information spells it.
constexpr const char* kMarks[] = {"libdnnl.so",    "libopenblas.so", "libsentencepiece.so",
                                  "libpcre2-8.so", "libhwy.so",      "9CpuDeviceE"};

void ExpectNoKernels(const std::string& binary) {
  const std::string path = std::string(LWQ_BIN_DIR "/") + binary;
  if (!FileExists(path)) GTEST_SKIP() << path << " is not built";
  const std::string bytes = ReadText(path);
  for (const char* mark : kMarks) {
    EXPECT_EQ(bytes.find(mark), std::string::npos) << binary << " links " << mark;
  }
}

TEST(LinkRulesTest, ServerHasNoKernels) { ExpectNoKernels("lwq-server"); }
TEST(LinkRulesTest, ClientHasNoKernels) { ExpectNoKernels("lwqctl"); }

// The marks are the right ones: the worker has them.
TEST(LinkRulesTest, WorkerHasKernels) {
  const std::string path = LWQ_BIN_DIR "/lwq-worker";
  if (!FileExists(path)) GTEST_SKIP() << path << " is not built";
  const std::string bytes = ReadText(path);
  for (const char* mark : {"libdnnl.so", "libopenblas.so", "9CpuDeviceE"}) {
    EXPECT_NE(bytes.find(mark), std::string::npos) << mark;
  }
}

}  // namespace
}  // namespace lwq::testing
