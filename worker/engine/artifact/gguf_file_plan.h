// What a GGUF file of a model under a plan consists of: metadata, and tensors in the file's order,
// each with what its rows are made of. Forecast, writer and proof go by this one description.
// docs/formats/gguf.md.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/engine/artifact/gguf_model_keys.h"
#include "worker/engine/gguf/gguf_family.h"
#include "worker/engine/gguf/gguf_layout.h"
#include "worker/engine/plan/artifact_layout.h"

namespace lwq {

inline constexpr char kGgufFileName[] = "model.gguf";

struct GgufTensorPlan {
  GgufTensorName name;
  std::string tensor;                    // of the source; empty: made from config.json
  std::vector<std::string> modules;      // of a unit's linears: one, or those of all experts
  const WeightFormat* format = nullptr;  // of a unit's linear
  std::vector<float> made;

  // Heads whose rows are reordered (PermutedRow); 0: none are.
  int64_t heads = 0;
};

struct GgufFilePlan {
  GgufModel model;
  std::vector<GgufTensorPlan> tensors;  // by layout.tensors
  GgufLayout layout;
};

// `model` is planned as GGUF (plan/artifact_format.h); `directory` has its config.json and
// tokenizer. Errors: those of MakeGgufModel, LoadTokenizer, SetGgufTokenizer and NameInGguf; UNIMPLEMENTED
// "GGUF_UNSUPPORTED" for what the writer cannot say.
absl::StatusOr<std::unique_ptr<GgufFilePlan>> PlanGgufFile(const ModelInventory& model,
                                                           const Plan& plan,
                                                           const std::string& directory);

// Sets model.gguf_other_bytes, or model.gguf_refusal where no file can be made of the model in
// `directory`. Errors are those of reading its files.
absl::Status DescribeForGguf(const std::string& directory, ModelInventory* model);

}  // namespace lwq
