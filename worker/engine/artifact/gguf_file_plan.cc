#include "worker/engine/artifact/gguf_file_plan.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/format/gguf.h"
#include "worker/engine/gguf/gguf_tokenizer.h"
#include "worker/engine/io/json_file.h"
#include "worker/engine/io/model_files.h"
#include "worker/engine/plan/artifact_format.h"
#include "worker/engine/tokenizer/tokenizer.h"

namespace lwq {
namespace {

constexpr int64_t kMaxTokenizerBytes = int64_t{64} << 20;

absl::StatusOr<std::string> ReadIfThere(const std::string& directory, const char* name) {
  if (!HasModelFile(directory, name)) return std::string();
  return ReadModelFile(directory, name, kMaxTokenizerBytes);
}

// Of tokenizer.json and tokenizer_config.json.
absl::Status CheckTokenizerFile(const std::string& text, const std::string& path) {
  if (text.empty()) return absl::OkStatus();
  JsonLimits limits;
  limits.reason = reasons::kTokenizerInvalid.name;
  limits.max_bytes = kMaxTokenizerBytes;
  return CheckJson(text, limits, path);
}

absl::StatusOr<GgufTokenizerFiles> ReadTokenizerFiles(const std::string& directory,
                                                      std::string config) {
  GgufTokenizerFiles files;
  files.config = std::move(config);
  LWQ_ASSIGN_OR_RETURN(files.tokenizer_model, ReadIfThere(directory, "tokenizer.model"));
  LWQ_ASSIGN_OR_RETURN(files.tokenizer_json, ReadTokenizerText(directory));
  LWQ_RETURN_IF_ERROR(
      CheckTokenizerFile(files.tokenizer_json, JoinPath(directory, "tokenizer.json")));
  constexpr char kConfig[] = "tokenizer_config.json";
  LWQ_ASSIGN_OR_RETURN(files.tokenizer_config, ReadIfThere(directory, kConfig));
  LWQ_RETURN_IF_ERROR(CheckTokenizerFile(files.tokenizer_config, JoinPath(directory, kConfig)));
  LWQ_ASSIGN_OR_RETURN(files.chat_template, ReadIfThere(directory, "chat_template.jinja"));
  LWQ_ASSIGN_OR_RETURN(const auto loaded, LoadTokenizer(directory));
  files.adds_bos = loaded->adds_bos();
  files.bos_id = loaded->bos_id();
  return files;
}

absl::Status Unsupported(absl::string_view what) {
  return Failure(reasons::kGgufUnsupported, what);
}

// The source's own type.
absl::StatusOr<GgufType> TypeOf(DType dtype, absl::string_view tensor) {
  switch (dtype) {
    case DType::kF32:
      return GgufType::kF32;
    case DType::kF16:
      return GgufType::kF16;
    case DType::kBF16:
      return GgufType::kBF16;
    default:
      return Unsupported(absl::StrCat("tensor ", tensor, " is ", NameOf(dtype)));
  }
}

// Collects tensors in the order they are to lie in the file.
class FilePlanner {
 public:
  FilePlanner(const ModelInventory& model, const Plan& plan, GgufFilePlan* file)
      : model_(model), plan_(plan), file_(*file) {}

  absl::Status AddPart(Place place) {
    for (const DenseTensor& tensor : model_.dense) {
      if (tensor.place == place) LWQ_RETURN_IF_ERROR(AddDense(tensor));
    }
    for (size_t u = 0; u < model_.units.size(); ++u) {
      if (!(model_.units[u].place == place)) continue;
      LWQ_RETURN_IF_ERROR(AddUnit(model_.units[u], plan_[u]));
    }
    return absl::OkStatus();
  }
  void AddRope(const GgufRopeTensor& rope) {
    GgufTensorPlan tensor;
    tensor.made = rope.values;
    specs_.push_back({rope.name, GgufType::kF32, {static_cast<int64_t>(rope.values.size())}});
    file_.tensors.push_back(std::move(tensor));
  }
  std::vector<GgufTensorSpec> TakeSpecs() { return std::move(specs_); }

 private:
  absl::StatusOr<GgufTensorPlan> Named(const std::string& tensor) const {
    GgufTensorPlan plan;
    plan.tensor = tensor;
    LWQ_ASSIGN_OR_RETURN(plan.name, NameInGguf(*file_.model.family, tensor));
    if (plan.name.permuted_query) plan.heads = file_.model.num_heads;
    if (plan.name.permuted_key) plan.heads = file_.model.num_kv_heads;
    return plan;
  }

  // Norms and biases, F32 whatever the source has.
  absl::Status AddDense(const DenseTensor& tensor) {
    LWQ_ASSIGN_OR_RETURN(GgufTensorPlan plan, Named(tensor.name));
    std::vector<int64_t> shape = tensor.shape;
    // The gate of a shared expert is a vector in llama.cpp.
    if (shape.size() == 2 && shape.front() == 1) shape.erase(shape.begin());
    specs_.push_back({plan.name.name, GgufType::kF32, std::move(shape)});
    file_.tensors.push_back(std::move(plan));
    return absl::OkStatus();
  }

  // One linear, or those of all experts: [experts, out, in].
  absl::Status AddUnit(const AllocationUnit& unit, const WeightFormat* format) {
    const LinearShape& linear = unit.linears.front();
    LWQ_ASSIGN_OR_RETURN(GgufTensorPlan plan, Named(linear.module + ".weight"));
    for (size_t e = 0; e < unit.linears.size(); ++e) {
      const std::string& module = unit.linears[e].module;
      LWQ_ASSIGN_OR_RETURN(const GgufTensorName name,
                           NameInGguf(*file_.model.family, module + ".weight"));
      const int64_t expert = unit.of_experts() ? static_cast<int64_t>(e) : -1;
      if (name.name != plan.name.name || name.expert != expert) {
        return Unsupported(absl::StrCat(module, " is not expert ", e, " of ", unit.name));
      }
      plan.modules.push_back(module);
    }
    plan.format = format;
    GgufType type = GgufType::kF32;
    if (format != nullptr && format->gguf() != nullptr) {
      type = format->gguf()->type().type;
    } else if (format != nullptr && format->dense()) {
      LWQ_ASSIGN_OR_RETURN(type,
                           TypeOf(linear.own_dtype.value_or(model_.weight_dtype), plan.tensor));
    } else {
      return Unsupported(absl::StrCat(linear.module, " in a GGUF file as ",
                                      format == nullptr ? "nothing at all" : format->id()));
    }
    std::vector<int64_t> shape = {linear.out_features, linear.in_features};
    if (unit.of_experts()) shape.insert(shape.begin(), static_cast<int64_t>(unit.linears.size()));
    specs_.push_back({plan.name.name, type, std::move(shape)});
    file_.tensors.push_back(std::move(plan));
    return absl::OkStatus();
  }

  const ModelInventory& model_;
  const Plan& plan_;
  GgufFilePlan& file_;
  std::vector<GgufTensorSpec> specs_;
};

// What says that llama.cpp has no such model, as against files that cannot be read.
bool IsRefusal(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnimplemented ||
         HasReason(status, reasons::kTensorUnknown) || HasReason(status, reasons::kGgufTensor) ||
         HasReason(status, reasons::kTokenizerInvalid) ||
         HasReason(status, reasons::kTokenizerUnsupported) ||
         HasReason(status, reasons::kConfigInvalid);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GgufFilePlan>> PlanGgufFile(const ModelInventory& model,
                                                           const Plan& plan,
                                                           const std::string& directory) {
  if (plan.size() != model.units.size()) {
    return Failure(
        reasons::kPlanMismatch,
        absl::StrCat("the plan has ", plan.size(), " formats for ", model.units.size(), " units"));
  }
  auto file = std::make_unique<GgufFilePlan>();
  LWQ_ASSIGN_OR_RETURN(std::string config, ReadModelJson(directory, "config.json",
                                                         {.reason = reasons::kConfigInvalid.name}));
  LWQ_ASSIGN_OR_RETURN(const DecoderSpec spec, ParseDecoderSpec(config));
  LWQ_ASSIGN_OR_RETURN(file->model, MakeGgufModel(spec, /*name=*/""));
  LWQ_ASSIGN_OR_RETURN(const GgufTokenizerFiles tokenizer,
                       ReadTokenizerFiles(directory, std::move(config)));
  LWQ_RETURN_IF_ERROR(SetGgufTokenizer(tokenizer, model.vocab_size, &file->model.metadata));
  FilePlanner planner(model, plan, file.get());
  LWQ_RETURN_IF_ERROR(planner.AddPart(Place::Embedding()));
  for (int layer = 0; layer < model.num_layers; ++layer) {
    LWQ_RETURN_IF_ERROR(planner.AddPart(Place::Layer(layer)));
  }
  LWQ_RETURN_IF_ERROR(planner.AddPart(Place::FinalNorm()));
  LWQ_RETURN_IF_ERROR(planner.AddPart(Place::Head()));
  for (const GgufRopeTensor& rope : file->model.rope_tensors) planner.AddRope(rope);
  LWQ_ASSIGN_OR_RETURN(file->layout, LayOutGguf(file->model.metadata, planner.TakeSpecs()));
  return file;
}

absl::Status DescribeForGguf(const std::string& directory, ModelInventory* model) {
  model->gguf_other_bytes = 0;
  model->gguf_refusal.clear();
  const ModelInventory planned = PlannedAs(ArtifactFormatDefs::gguf, *model);
  const Plan dense(planned.units.size(), DenseFormat());
  const absl::StatusOr<std::unique_ptr<GgufFilePlan>> file =
      PlanGgufFile(planned, dense, directory);
  if (file.ok()) {
    // What the planner adds of the units' tensors is left out.
    model->gguf_other_bytes = (*file)->layout.file_bytes - WeightFileBytes(planned, dense, 0);
    return absl::OkStatus();
  }
  if (!IsRefusal(file.status())) return file.status();
  model->gguf_refusal = std::string(file.status().message());
  return absl::OkStatus();
}

}  // namespace lwq
