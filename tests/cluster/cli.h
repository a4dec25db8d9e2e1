// lwqctl as a user calls it, with a data directory of the test's own.
#pragma once

#include <stdlib.h>
#include <sys/types.h>
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"
#include "tests/testing/shared_data.h"

namespace lwq::testing {

struct CliAnswer {
  int code = -1;
  std::string out;
  std::string err;
};

// "" when all three binaries are built, else why the test has to be skipped.
inline std::string MissingBinary() {
  for (const char* name : {"lwqctl", "lwq-server", "lwq-worker"}) {
    const std::string path = JoinPath(LWQ_BIN_DIR, name);
    if (!FileExists(path)) return absl::StrCat(path, " is not built");
  }
  return "";
}

class CliTest : public ::testing::Test {
 protected:
  CliTest() : directory_(*TempDirectory::Create()) {}
  ~CliTest() override { Lwqctl("down --force"); }

  void SetUp() override {
    if (const std::string missing = MissingBinary(); !missing.empty()) GTEST_SKIP() << missing;
  }

  std::string File(const std::string& name) const { return JoinPath(directory_.path(), name); }
  std::string data() const { return File("data"); }

  // The shell line of a call whose stdout and stderr go to files `stem`.out and .err.
  std::string Line(const std::string& words, const std::string& stem) const {
    return absl::StrCat(LWQ_BIN_DIR "/lwqctl ", words, " --data-dir ", data(), " >", File(stem),
                        ".out 2>", File(stem), ".err");
  }
  CliAnswer Lwqctl(const std::string& words) const {
    const int status = ::system(Line(words, "answer").c_str());
    return Read(WEXITSTATUS(status), "answer");
  }
  CliAnswer Read(int code, const std::string& stem) const {
    constexpr int64_t kMostBytes = 16 << 20;
    return {code, ReadFile(File(stem + ".out"), kMostBytes).value_or(""),
            ReadFile(File(stem + ".err"), kMostBytes).value_or("")};
  }

  // A quantize of the sample that takes seconds: no statistics, no measurement.
  std::string QuickQuantize(const std::string& out) const {
    return absl::StrCat(
        "quantize ", SampleModelPath(),
        " --budget 4.5bpw --method rtn --scorer lim --allocator two-level"
        " --calibration ",
        SampleModelPath(),
        "/held-out.txt --calibration-tokens 512 --threads 1 --no-eval --json --out ", File(out));
  }

  // A process that the pair's supervisor started, by the name of its program; 0 when there is none.
  pid_t FindChild(const std::string& program) const {
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      int pid = 0;
      if (!absl::SimpleAtoi(entry.path().filename().string(), &pid)) continue;
      std::FILE* file = std::fopen((entry.path() / "cmdline").c_str(), "r");
      if (file == nullptr) continue;
      std::string line(8192, '\0');
      line.resize(std::fread(line.data(), 1, line.size(), file));
      std::fclose(file);
      const std::string name = line.substr(0, line.find('\0'));
      if (Basename(name) == program && line.find(data()) != std::string::npos) return pid;
    }
    return 0;
  }

  static google::protobuf::Struct Json(const std::string& text) {
    google::protobuf::Struct object;
    EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(text, &object).ok()) << text;
    return object;
  }
  static double Number(const google::protobuf::Struct& object, const std::string& field) {
    const auto found = object.fields().find(field);
    return found == object.fields().end() ? -1 : found->second.number_value();
  }

  TempDirectory directory_;
};

}  // namespace lwq::testing
