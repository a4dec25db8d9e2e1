#include "worker/runner/model_check.h"

#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/failure.h"
#include "base/model_path.h"
#include "base/reasons.h"
#include "nlohmann/json.hpp"
#include "worker/engine/artifact/gguf_file_plan.h"
#include "worker/engine/gguf/gguf_reader.h"
#include "worker/runner/task_input.h"

namespace lwq {
namespace {

constexpr size_t kMostNamed = 3;

ModelCheck Failed(absl::string_view name, const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return {std::string(name), "fail", absl::StrCat(reason, ": ", status.message()),
          std::string(ReasonLine(reason, status.code()).help)};
}

// Tensors that no part of the family's description asks for.
ModelCheck CheckTensors(const OpenedModel& model) {
  std::set<std::string> known;
  for (const AllocationUnit& unit : model.inventory.units) {
    for (const LinearShape& linear : unit.linears) {
      known.insert(absl::StrCat(linear.module, ".weight"));
    }
  }
  for (const DenseTensor& tensor : model.inventory.dense) known.insert(tensor.name);
  std::vector<std::string> unknown;
  for (const std::string& name : model.checkpoint->tensor_names()) {
    if (known.count(name) == 0) unknown.push_back(name);
  }
  if (unknown.empty()) {
    return {"tensors", "ok", absl::StrCat(known.size(), " tensors, all understood"), ""};
  }
  const size_t named = std::min(unknown.size(), kMostNamed);
  return {"tensors", "warn",
          absl::StrCat(unknown.size(), " tensors are not used: ",
                       absl::StrJoin(unknown.begin(), unknown.begin() + named, ", "),
                       unknown.size() > named ? ", ..." : ""),
          "nothing, if the model answers well without them; they are not in the artifact"};
}

// What a GGUF file stores in fewer bits than floats: each type with its number of tensors.
std::string QuantizedTypes(const std::string& path) {
  const absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Open(path);
  if (!file.ok()) return "";
  std::map<std::string, int> counts;
  for (const GgufTensorSpec& tensor : (*file)->header().tensors) {
    if (DefOf(tensor.type).shape != nullptr) ++counts[std::string(DefOf(tensor.type).name)];
  }
  std::vector<std::string> types;
  for (const auto& [type, count] : counts) types.push_back(absl::StrCat(count, " in ", type));
  return absl::StrJoin(types, ", ");
}

ModelCheck CheckTypes(const std::string& path) {
  const std::string types = QuantizedTypes(path);
  if (types.empty()) return {"types", "ok", "floats alone", ""};
  return {"types", "warn", absl::StrCat("quantized already: tensors are ", types),
          "give the model that it was made from: what the first time cost is not won back"};
}

ModelCheck CheckTokenizer(const std::string& directory) {
  const auto tokenizer = LoadTokenizer(directory);
  if (!tokenizer.ok()) return Failed("tokenizer", tokenizer.status());
  const absl::StatusOr<std::vector<int32_t>> tokens =
      (*tokenizer)->Encode("Hello, world", /*add_special_tokens=*/false);
  if (!tokens.ok()) return Failed("tokenizer", tokens.status());
  return {"tokenizer", "ok", absl::StrCat("reads \"Hello, world\" as ", tokens->size(), " tokens"),
          ""};
}

}  // namespace

std::vector<ModelCheck> CheckModel(const std::string& directory) {
  std::vector<ModelCheck> checks;
  const absl::StatusOr<DecoderSpec> spec = ReadDecoderSpec(directory);
  if (!spec.ok()) return {Failed("config", spec.status())};
  checks.push_back({"config", "ok",
                    absl::StrCat(spec->architecture, ", family ", spec->family, ", ",
                                 spec->num_layers(), " layers of ", spec->hidden_size),
                    ""});
  absl::StatusOr<OpenedModel> model = OpenModel(directory);
  if (!model.ok()) {
    checks.push_back(Failed("weights", model.status()));
  } else {
    checks.push_back({"weights", "ok",
                      absl::StrCat(model->checkpoint->file_names().size(), " files, ",
                                   model->checkpoint->total_file_bytes(), " bytes, ",
                                   NameOf(model->inventory.weight_dtype)),
                      ""});
    checks.push_back(CheckTensors(*model));
  }
  if (IsGgufFile(directory)) checks.push_back(CheckTypes(directory));
  checks.push_back(CheckTokenizer(directory));
  if (!model.ok() || checks.back().state != "ok") return checks;
  if (const absl::Status gguf = DescribeForGguf(directory, &model->inventory); !gguf.ok()) {
    checks.push_back(Failed("gguf", gguf));
  } else if (!model->inventory.gguf_refusal.empty()) {
    checks.push_back({"gguf", "warn", model->inventory.gguf_refusal,
                      "nothing, unless it is for llama.cpp; other engines are not affected"});
  } else {
    checks.push_back({"gguf", "ok", "can be written for llama.cpp", ""});
  }
  return checks;
}

std::string ModelChecksJson(const std::vector<ModelCheck>& checks) {
  std::string text;
  for (const ModelCheck& check : checks) {
    nlohmann::ordered_json line;
    line["name"] = check.name;
    line["state"] = check.state;
    line["detail"] = check.detail;
    line["advice"] = check.advice;
    absl::StrAppend(&text, line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace),
                    "\n");
  }
  return text;
}

bool AllPassed(const std::vector<ModelCheck>& checks) {
  return std::none_of(checks.begin(), checks.end(),
                      [](const ModelCheck& check) { return check.state == "fail"; });
}

}  // namespace lwq
