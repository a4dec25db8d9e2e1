// Sources stay small and tested: no function is longer than a screen, and each source has a test
// of its name, or a suite that stands for its folder.
#include <filesystem>
#include <map>
#include <regex>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/lint/source_tree.h"

namespace lwq::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr size_t kMaxFunctionLines = 60;

// "<line>: <lines> lines" of functions that are too long, those of classes too. Reads the layout
// that clang-format gives the tree: a function starts at the last line of its own indentation before a
// "}" that stands alone. A loop as long as that is found as well: its function is longer still.
std::vector<std::string> LongFunctions(const std::string& text) {
  static const std::regex& type = *new std::regex("^ *(class|struct|enum|union|namespace)\\b");
  std::vector<std::string> found;
  const std::vector<std::string> lines = Lines(text);
  std::map<size_t, size_t> starts;  // by indentation
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string& line = lines[i];
    const size_t indent = line.find_first_not_of(' ');
    if (indent == std::string::npos || line[indent] == '#' || line[indent] == '/') continue;
    if (line.substr(indent) == "}") {
      const size_t start = starts[indent], length = i - start + 1;
      if (length > kMaxFunctionLines && !std::regex_search(lines[start], type)) {
        found.push_back(std::to_string(start + 1) + ": " + std::to_string(length) + " lines");
      }
    } else if (line[indent] != '}') {
      starts[indent] = i;
    }
  }
  return found;
}

// Not the tests: theirs are long by tables of cases.
TEST(SourceRules, FunctionsFitOnAScreen) {
  for (const char* top : {"base", "records", "worker", "server", "client", "bench"}) {
    for (const SourceFile& file : SourceFiles(top, {".cc", ".h", ".cu", ".cuh"})) {
      EXPECT_THAT(LongFunctions(file.text), IsEmpty()) << file.path;
    }
  }
}

TEST(SourceRules, ALongFunctionIsSeenAndALongTypeIsNot) {
  std::string body;
  for (size_t i = 0; i < kMaxFunctionLines - 2; ++i) body += "  f();\n";
  EXPECT_THAT(LongFunctions("// it\nvoid F() {\n" + body + "}\n"), IsEmpty());
  EXPECT_THAT(LongFunctions("// it\nvoid F() {\n" + body + "  f();\n}\n"),
              ElementsAre("2: 61 lines"));
  EXPECT_THAT(LongFunctions("struct S {\n" + body + body + "};\n"), IsEmpty());
}

TEST(SourceRules, ALongMethodIsSeenInItsClass) {
  std::string body;
  for (size_t i = 0; i < kMaxFunctionLines - 2; ++i) body += "    f();\n";
  const std::string before = "class C {\n public:\n  void Short() {\n    f();\n  }\n  void F() {\n";
  EXPECT_THAT(LongFunctions(before + body + "  }\n};\n"), IsEmpty());
  EXPECT_THAT(LongFunctions(before + body + "    f();\n  }\n};\n"), ElementsAre("6: 61 lines"));
  EXPECT_THAT(LongFunctions("class C {\n  struct S {\n" + body + body + "  };\n};\n"), IsEmpty());
}

// Lines outside of comments with a string that has a part of a linear's module name in it.
std::vector<std::string> LinesWithModuleNames(const std::string& text) {
  static const std::regex& name = *new std::regex("\"[^\"]*(_proj|self_attn|mlp\\.)[^\"]*\"");
  std::vector<std::string> found;
  for (const std::string& line : Lines(text)) {
    const std::string code = line.substr(0, line.find("//"));
    if (std::regex_search(code, name)) found.push_back(line);
  }
  return found;
}

// What a linear is, its role says (worker/engine/plan/model_inventory.h), and what it reads, its
// input. Names are spelled where families make them and where engines have their own for them.
TEST(SourceRules, NobodyTakesAModulesNameApart) {
  size_t spelled = 0;
  for (const char* top : {"base", "records", "worker", "server", "client"}) {
    for (const SourceFile& file : SourceFiles(top, {".cc", ".h"})) {
      const std::vector<std::string> lines = LinesWithModuleNames(file.text);
      const bool names = IsUnder(file.path, "worker/engine/model") ||
                         file.path == "worker/engine/gguf/gguf_family.cc" ||
                         file.path == "worker/engine/artifact/module_patterns.cc";
      if (names) {
        spelled += lines.size();
      } else {
        EXPECT_THAT(lines, IsEmpty()) << file.path;
      }
    }
  }
  EXPECT_GT(spelled, 20u);  // the walk found those that do
}

TEST(SourceRules, AModulesNameIsSeenInCodeAndNotInAComment) {
  EXPECT_THAT(LinesWithModuleNames("if (absl::EndsWith(kind, \"v_proj\")) return 1;\n"),
              ::testing::SizeIs(1));
  EXPECT_THAT(LinesWithModuleNames("std::string name;  // \"self_attn.q_proj\"\n"), IsEmpty());
}

// Where a suite tests a folder as a whole, or a file through what uses it.
const std::map<std::string, std::string>& Suites() {
  static const auto& suites = *new std::map<std::string, std::string>{
      {"base/metrics/", "tests/server/service/server_metrics_test.cc"},
      {"base/rpc/", "tests/base/rpc/channel_test.cc"},
      {"client/", "tests/cluster/cli_service_test.cc"},
      {"client/commands/", "tests/cluster/cli_service_test.cc"},
      {"client/hub/", "tests/client/hub/hub_download_test.cc"},
      {"server/", "tests/cluster/cli_service_test.cc"},
      {"server/blob/", "tests/server/blob/blob_store_conformance_test.cc"},
      {"server/dispatch/", "tests/server/dispatch/transitions_test.cc"},
      {"server/service/", "tests/server/service/server_test.cc"},
      {"server/store/", "tests/server/store/store_conformance_test.cc"},
      {"worker/", "tests/worker/agent_test.cc"},
      {"worker/engine/artifact/", "tests/worker/engine/artifact/artifact_writer_test.cc"},
      {"worker/engine/device/", "tests/conformance/memory_ops_test.cc"},
      {"worker/engine/device/cpu/", "tests/conformance/product_ops_test.cc"},
      {"worker/engine/device/cuda/", "tests/conformance/cuda_devices.cc"},
      {"worker/engine/device/reference/", "tests/conformance/judge_test.cc"},
      {"worker/engine/eval/", "tests/worker/engine/eval/token_scoring_golden_test.cc"},
      {"worker/engine/evidence/", "tests/worker/engine/evidence/collectors_test.cc"},
      {"worker/engine/format/", "tests/worker/engine/format/grid_test.cc"},
      {"worker/engine/gguf/", "tests/worker/engine/gguf/block_type_test.cc"},
      {"worker/engine/io/", "tests/worker/engine/io/model_files_test.cc"},
      {"worker/engine/model/", "tests/worker/engine/model/families_golden_test.cc"},
      {"worker/engine/plan/", "tests/worker/engine/plan/artifact_format_test.cc"},
      {"worker/engine/quant/", "tests/conformance/quantizers_test.cc"},
      {"worker/engine/score/", "tests/worker/engine/score/scorer_test.cc"},
      {"worker/engine/tensor/", "tests/worker/engine/tensor/host_memory_test.cc"},
      {"worker/engine/tokenizer/", "tests/worker/engine/tokenizer/tokenizer_golden_test.cc"},
      {"worker/engine/tokenizer/sentencepiece/",
       "tests/worker/engine/tokenizer/tokenizer_golden_test.cc"},
      {"worker/runner/", "tests/worker/runner/task_runner_test.cc"},
  };
  return suites;
}

TEST(SourceRules, EachSourceHasItsTest) {
  std::set<std::string> used;
  for (const char* top : {"base", "records", "worker", "server", "client"}) {
    for (const SourceFile& file : SourceFiles(top, {".cc", ".cu"})) {
      const std::string own = "tests/" + file.folder + "/" + file.stem + "_test.cc";
      if (std::filesystem::exists(std::string(LWQ_SOURCE_DIR "/") + own)) continue;
      const auto suite = Suites().find(file.folder + "/");
      EXPECT_TRUE(suite != Suites().end())
          << file.path << " has no test: write " << own << ", or name its folder's suite here";
      used.insert(file.folder + "/");
    }
  }
  for (const auto& [folder, test] : Suites()) {
    EXPECT_TRUE(used.count(folder)) << folder << " needs no suite any more";
    EXPECT_TRUE(std::filesystem::exists(std::string(LWQ_SOURCE_DIR "/") + test))
        << test << " is not there";
  }
}

}  // namespace
}  // namespace lwq::testing
