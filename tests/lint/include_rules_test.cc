// Who may include whom. System-wide headers make link dependencies too weak a fence: a gRPC include
// in the engine would compile. The two tables are the rules; ARCHITECTURE.md draws them.
#include <regex>

#include "gtest/gtest.h"
#include "tests/lint/source_tree.h"

namespace lwq::testing {
namespace {

struct FolderRule {
  const char* folder;                // a folder or file; the longest that holds a file decides
  std::vector<const char*> allowed;  // folders or files of ours, besides its own folder
};

const std::vector<FolderRule>& FolderRules() {
  static const auto& rules = *new std::vector<FolderRule>{
      {"base", {}},
      {"base/rpc", {"base"}},
      {"base/metrics", {"base"}},
      {"worker/engine/tensor", {"base"}},
      {"worker/engine/format", {"worker/engine/gguf/block_type.h", "worker/engine/tensor", "base"}},
      {"worker/engine/plan",
       {"worker/engine/format", "worker/engine/gguf/gguf_layout.h", "worker/engine/tensor/dtype.h",
        "worker/engine/tensor/pack_bits.h", "base"}},
      {"worker/engine/io",
       {"worker/engine/gguf", "worker/engine/tensor", "worker/engine/plan/safetensors_layout.h",
        "base"}},
      {"worker/engine/gguf", {"worker/engine/tensor", "base"}},
      {"worker/engine/device", {"worker/engine/tensor", "base"}},
      {"worker/engine/device/device_factory.cc", {"worker/engine/device", "base"}},
      {"worker/engine/device/reference", {"worker/engine/device", "worker/engine/tensor", "base"}},
      {"worker/engine/device/cpu", {"worker/engine/device", "worker/engine/tensor", "base"}},
      {"worker/engine/device/cuda", {"worker/engine/device", "worker/engine/tensor", "base"}},
      {"worker/engine/tokenizer",
       {"worker/engine/tokenizer/sentencepiece", "worker/engine/io", "base"}},
      {"worker/engine/model",
       {"worker/engine/io", "worker/engine/plan/model_inventory.h", "worker/engine/device/device.h",
        "worker/engine/tensor", "base"}},
      // A method sees a layer's slots and what calibration left of it, never a model.
      {"worker/engine/quant",
       {"worker/engine/evidence/channel_statistics.h", "worker/engine/evidence/evidence.h",
        "worker/engine/evidence/input_evidence.h", "worker/engine/evidence/input_rows.h",
        "worker/engine/format", "worker/engine/model/layer_edits.h",
        "worker/engine/model/layer_spec.h", "worker/engine/model/weight_source.h",
        "worker/engine/device/device.h", "worker/engine/device/scale_grid.h",
        "worker/engine/gguf/block_fit.h", "worker/engine/tensor", "base"}},
      {"worker/engine/evidence",
       {"worker/engine/model", "worker/engine/device/device.h", "worker/engine/tensor", "base"}},
      {"worker/engine/score",
       {"worker/engine/evidence", "worker/engine/model", "worker/engine/device/device.h",
        "worker/engine/plan", "worker/engine/tensor", "base"}},
      {"worker/engine/eval",
       {"worker/engine/tokenizer", "worker/engine/model", "worker/engine/io",
        "worker/engine/device/device.h", "worker/engine/tensor", "base"}},
      {"worker/engine/artifact",
       {"worker/engine/quant", "worker/engine/plan", "worker/engine/format", "worker/engine/gguf",
        "worker/engine/model", "worker/engine/io", "worker/engine/tokenizer/tokenizer.h",
        "worker/engine/device/device.h", "worker/engine/tensor", "base"}},
      // Between the records and the planner, for the server and the worker alike.
      {"records", {"worker/engine/plan", "proto", "base"}},
      {"worker/runner", {"worker/engine", "records", "proto", "base"}},
      // The agent tells the server what its engine has: the registries' headers.
      {"worker",
       {"worker/runner", "records/option_records.h", "worker/engine/device/device.h",
        "worker/engine/device/device_speed.h", "worker/engine/model/families.h",
        "worker/engine/quant/quantizer.h", "worker/engine/score/scorer.h", "proto", "base"}},
      {"server/store", {"proto", "base"}},
      {"server/blob", {"proto", "base"}},
      {"server/dispatch",
       {"server/store", "server/blob", "records", "worker/engine/plan", "worker/engine/format",
        "proto", "base"}},
      {"server/backup", {"server/store", "server/blob", "proto", "base"}},
      {"server", {"server", "records", "worker/engine/plan", "proto", "base"}},
      // A budget's text is read where it is typed, by the planner's grammar.
      {"client", {"client", "records", "worker/engine/plan/budget.h", "proto", "base"}},
      // Proves a GGUF file offline: its reader, which computes nothing.
      {"client/verify_artifact.cc", {"client", "worker/engine/gguf/gguf_reader.h", "base"}},
  };
  return rules;
}

// Exceptions to what a table entry above allows.
const std::vector<FolderRule>& Forbidden() {
  static const auto& rules = *new std::vector<FolderRule>{
      // The engine neither logs nor speaks to a network.
      {"worker/engine", {"base/log.h", "base/rpc", "base/metrics", "proto"}},
      {"server/dispatch", {"base/rpc", "base/metrics"}},
      {"server/store", {"base/rpc", "base/metrics"}},
      {"base/file.h", {"base/rpc", "base/metrics"}},
  };
  return rules;
}

struct ThirdPartyRule {
  const char* header;                // regular expression over the included path
  std::vector<const char*> allowed;  // folders or files
  bool headers_too;                  // whether a .h may include it
};

const std::vector<ThirdPartyRule>& ThirdPartyRules() {
  static const auto& rules = *new std::vector<ThirdPartyRule>{
      {"grpcpp/.*|grpc/.*",
       {"base/rpc", "worker", "server/service", "server/main.cc", "client"},
       true},
      {"google/protobuf/.*", {"base/rpc", "records", "worker", "server", "client"}, true},
      {"prometheus/.*", {"base/metrics"}, true},
      {"cuda.*|cublas.*|cusolver.*|nccl.*", {"worker/engine/device/cuda"}, true},
      {"hwy/.*", {"worker/engine/device/cpu"}, false},
      {"(oneapi/)?dnnl.*", {"worker/engine/device/cpu"}, true},
      {"cblas\\.h|lapacke\\.h|openblas.*|omp\\.h", {"worker/engine/device/cpu"}, false},
      {"curl/.*", {"server/blob", "client/hub"}, false},
      {"sqlite3\\.h|libpq-fe\\.h", {"server/store"}, true},
      {"nlohmann/.*", {"worker", "server", "client", "base"}, false},
      {"sentencepiece.*|pcre2\\.h", {"worker/engine/tokenizer"}, false},
      {"openssl/.*", {"base"}, false},
      {"spdlog/.*", {"base/log.h", "base/log.cc"}, true},
      {"CLI/.*",
       {"base/settings.cc", "worker/main.cc", "server/main.cc", "server/backup_command.cc",
        "server/store_command.cc", "client"},
       true},
      {"gtest/.*|gmock/.*|benchmark/.*", {}, true},
  };
  return rules;
}

// Headers that show a third-party type to the .cc files of their own folder, and to no other.
const std::vector<std::string>& PrivateHeaders() {
  static const auto& headers =
      *new std::vector<std::string>{"worker/engine/tokenizer/json_reading.h"};
  return headers;
}

bool IsPrivate(const std::string& path) {
  return std::find(PrivateHeaders().begin(), PrivateHeaders().end(), path) !=
         PrivateHeaders().end();
}

const std::vector<std::string>& Roots() {
  static const auto& roots =
      *new std::vector<std::string>{"base", "records", "worker", "server", "client"};
  return roots;
}

std::vector<std::string> Includes(const std::string& text) {
  static const std::regex& pattern = *new std::regex("^\\s*#\\s*include\\s*[<\"]([^>\"]+)[>\"]");
  std::vector<std::string> includes;
  for (const std::string& line : Lines(text)) {
    std::smatch match;
    if (std::regex_search(line, match, pattern)) includes.push_back(match[1]);
  }
  return includes;
}

const FolderRule* RuleOf(const std::vector<FolderRule>& rules, const std::string& path) {
  const FolderRule* best = nullptr;
  for (const FolderRule& rule : rules) {
    if (IsUnder(path, rule.folder) &&
        (best == nullptr || std::string(rule.folder).size() > std::string(best->folder).size())) {
      best = &rule;
    }
  }
  return best;
}

bool InAny(const std::string& path, const std::vector<const char*>& folders) {
  return std::any_of(folders.begin(), folders.end(),
                     [&](const char* folder) { return IsUnder(path, folder); });
}

// "" when `file` may include `included`; else why not.
std::string Objection(const SourceFile& file, const std::string& included) {
  static const std::vector<std::string>& ours = *new std::vector<std::string>{
      "base", "worker", "server", "client", "proto", "tests", "bench"};
  const bool is_ours = std::any_of(ours.begin(), ours.end(),
                                   [&](const std::string& top) { return IsUnder(included, top); });
  if (is_ours) {
    const std::string folder = included.substr(0, included.rfind('/'));
    if (IsPrivate(included) && (folder != file.folder || file.extension != ".cc")) {
      return "private header";
    }
    if (folder == file.folder) return "";
    for (const FolderRule& rule : Forbidden()) {
      if (IsUnder(file.path, rule.folder) && InAny(included, rule.allowed)) {
        return std::string("forbidden in ") + rule.folder;
      }
    }
    const FolderRule* rule = RuleOf(FolderRules(), file.path);
    if (rule == nullptr) return "no rule for this folder";
    return InAny(included, rule->allowed) ? "" : std::string("not in the list of ") + rule->folder;
  }
  for (const ThirdPartyRule& rule : ThirdPartyRules()) {
    if (!std::regex_match(included, std::regex(rule.header))) continue;
    const bool engine = IsUnder(file.path, "worker/engine");
    const bool named_engine =
        std::any_of(rule.allowed.begin(), rule.allowed.end(),
                    [](const char* folder) { return IsUnder(folder, "worker/engine"); });
    const bool network =
        std::string(rule.header).find("grpc") == 0 || std::string(rule.header).find("google") == 0;
    if (!InAny(file.path, rule.allowed) || (engine && !named_engine && network)) {
      return "third-party header outside its folder";
    }
    if (!rule.headers_too && file.extension == ".h" && !IsPrivate(file.path))
      return "third-party header in a .h";
  }
  return "";
}

TEST(IncludeRulesTest, EveryIncludeFollowsTheTable) {
  int checked = 0;
  for (const std::string& root : Roots()) {
    for (const SourceFile& file : SourceFiles(root, {".h", ".cc"})) {
      for (const std::string& included : Includes(file.text)) {
        ++checked;
        const std::string objection = Objection(file, included);
        EXPECT_EQ(objection, "") << file.path << " includes " << included;
      }
    }
  }
  EXPECT_GT(checked, 100);  // the walk found the tree
}

// What the table is there to stop.
TEST(IncludeRulesTest, ObjectsToWhatItShould) {
  const auto objects = [](const char* path, const char* included) {
    const std::string p = path;
    const size_t slash = p.rfind('/');
    const size_t dot = p.rfind('.');
    const SourceFile file{p, p.substr(0, slash), p.substr(slash + 1, dot - slash - 1),
                          p.substr(dot), ""};
    return !Objection(file, included).empty();
  };
  EXPECT_TRUE(objects("worker/engine/quant/rtn.cc", "grpcpp/grpcpp.h"));
  EXPECT_TRUE(objects("worker/engine/quant/rtn.cc", "google/protobuf/message.h"));
  EXPECT_TRUE(objects("worker/engine/quant/rtn.cc", "proto/lwq/v1/task.pb.h"));
  EXPECT_TRUE(objects("worker/engine/quant/rtn.cc", "worker/engine/model/decoder.h"));
  EXPECT_TRUE(objects("worker/engine/quant/rtn.cc", "base/log.h"));
  EXPECT_TRUE(objects("worker/engine/quant/rtn.cc", "hwy/highway.h"));
  EXPECT_TRUE(objects("worker/engine/device/cpu/kernels.h", "hwy/highway.h"));
  EXPECT_TRUE(objects("worker/engine/device/cpu/x.cc", "cuda_runtime.h"));
  EXPECT_TRUE(objects("worker/engine/plan/budget.cc", "worker/engine/tensor/matrix.h"));
  EXPECT_TRUE(objects("worker/engine/io/checkpoint.h", "nlohmann/json.hpp"));
  EXPECT_TRUE(objects("server/dispatch/job_table.cc", "grpcpp/grpcpp.h"));
  EXPECT_TRUE(objects("server/dispatch/job_table.cc", "server/service/x.h"));
  EXPECT_TRUE(objects("server/service/x.cc", "worker/engine/quant/quantizer.h"));
  EXPECT_TRUE(objects("server/service/x.cc", "sqlite3.h"));
  EXPECT_TRUE(objects("client/main.cc", "worker/engine/plan/allocator.h"));
  EXPECT_TRUE(objects("client/main.cc", "server/store/store.h"));
  EXPECT_TRUE(objects("base/file.cc", "worker/engine/tensor/dtype.h"));
  EXPECT_TRUE(objects("base/file.cc", "prometheus/registry.h"));
  EXPECT_TRUE(objects("base/file.cc", "gtest/gtest.h"));
  EXPECT_FALSE(objects("worker/engine/device/cpu/kernels.cc", "hwy/highway.h"));
  EXPECT_FALSE(objects("server/service/x.cc", "server/dispatch/job_table.h"));
  EXPECT_FALSE(objects("server/service/x.cc", "worker/engine/plan/budget.h"));
  EXPECT_FALSE(objects("worker/engine/plan/budget.cc", "worker/engine/tensor/dtype.h"));
}

}  // namespace
}  // namespace lwq::testing
