// A model directory to a GGUF file, plainly: what the comparisons with llama.cpp open.
//
//   write_gguf MODEL_DIR OUT LINEARS EMBEDDINGS
//       LINEARS, EMBEDDINGS: types, such as Q8_0 and F16; a matrix whose rows do not fit is F16, a
//       vector F32. Prints the forecast of the size in bytes.
#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/engine/artifact/gguf_model_keys.h"
#include "worker/engine/gguf/block_fit.h"
#include "worker/engine/gguf/gguf_family.h"
#include "worker/engine/gguf/gguf_tokenizer.h"
#include "worker/engine/gguf/gguf_writer.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/tensor/widen.h"
#include "worker/engine/tokenizer/tokenizer.h"

namespace lwq {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{64} << 20;

struct Source {
  std::vector<std::string> tensors;  // one, or one per expert; none: made from config.json
  GgufTensorName name;
  std::vector<float> made;
};

absl::StatusOr<std::string> ReadIfThere(const std::string& directory, const char* name) {
  const std::string path = JoinPath(directory, name);
  if (!FileExists(path)) return std::string();
  return ReadFile(path, kMaxFileBytes);
}

absl::StatusOr<GgufTokenizerFiles> ReadTokenizerFiles(const std::string& directory) {
  GgufTokenizerFiles files;
  LWQ_ASSIGN_OR_RETURN(files.tokenizer_model, ReadIfThere(directory, "tokenizer.model"));
  LWQ_ASSIGN_OR_RETURN(files.tokenizer_json, ReadTokenizerText(directory));
  LWQ_ASSIGN_OR_RETURN(files.tokenizer_config, ReadIfThere(directory, "tokenizer_config.json"));
  LWQ_ASSIGN_OR_RETURN(files.config, ReadIfThere(directory, "config.json"));
  LWQ_ASSIGN_OR_RETURN(files.chat_template, ReadIfThere(directory, "chat_template.jinja"));
  LWQ_ASSIGN_OR_RETURN(const auto loaded, LoadTokenizer(directory));
  files.adds_bos = loaded->adds_bos();
  files.bos_id = loaded->bos_id();
  return files;
}

GgufType TypeFor(const std::vector<int64_t>& shape, bool embedding, const GgufTypeDef* linears,
                 const GgufTypeDef* embeddings) {
  if (shape.size() < 2) return GgufType::kF32;
  const GgufTypeDef* type = embedding ? embeddings : linears;
  return shape.back() % type->block_size == 0 ? type->type : GgufType::kF16;
}

// One matrix [rows, cols] of `spec`, a vector being a matrix of one row.
absl::Status WriteMatrix(const GgufModel& model, const Source& source, const GgufTensorSpec& spec,
                         Matrix values, GgufWriter* writer) {
  const bool vector = spec.shape.size() == 1;  // a bias has one row per value
  const int64_t heads = source.name.permuted_query ? model.num_heads
                        : source.name.permuted_key ? model.num_kv_heads
                                                   : 0;
  const int64_t row_size = vector ? 1 : values.cols();
  const int64_t num_rows = vector ? values.cols() : values.rows();
  const GgufTypeDef& type = DefOf(spec.type);
  std::vector<uint8_t> bytes(static_cast<size_t>(type.RowBytes(row_size)));
  std::vector<float> row(static_cast<size_t>(row_size));
  for (int64_t r = 0; r < num_rows; ++r) {
    const int64_t from = heads == 0 ? r : PermutedRow(r, num_rows, heads);
    std::copy_n(values.data() + from * row_size, row_size, row.data());
    for (float& value : row) value += source.name.plus_one ? 1.0f : 0.0f;
    QuantizeRow(type, GgufFit::kSearch, row, {}, bytes.data());
    LWQ_RETURN_IF_ERROR(writer->Append(spec.name, bytes));
  }
  return absl::OkStatus();
}

absl::Status WriteTensor(const Checkpoint& checkpoint, const GgufModel& model, const Source& source,
                         const GgufTensorSpec& spec, GgufWriter* writer) {
  const int64_t cols = spec.shape.back();
  const int64_t parts = std::max<int64_t>(1, static_cast<int64_t>(source.tensors.size()));
  const int64_t rows = spec.num_elements() / cols / parts;
  if (source.tensors.empty()) {
    Matrix values(rows, cols);
    std::copy(source.made.begin(), source.made.end(), values.data());
    return WriteMatrix(model, source, spec, std::move(values), writer);
  }
  for (const std::string& tensor : source.tensors) {
    Matrix values(rows, cols);
    LWQ_ASSIGN_OR_RETURN(const TensorView view, checkpoint.Get(tensor));
    LWQ_RETURN_IF_ERROR(WidenToFloat(tensor, view, true, values.view()));
    LWQ_RETURN_IF_ERROR(WriteMatrix(model, source, spec, std::move(values), writer));
  }
  return absl::OkStatus();
}

// Puts `tensor` into the stack of its kind of experts.
void AddExpert(const std::string& tensor, const GgufTensorName& name, const GgufTensorSpec& expert,
               std::vector<Source>* sources, std::vector<GgufTensorSpec>* specs) {
  size_t at = 0;
  while (at < specs->size() && (*specs)[at].name != name.name) ++at;
  if (at == specs->size()) {
    specs->push_back(expert);
    specs->back().shape.insert(specs->back().shape.begin(), 0);
    sources->push_back({{}, name, {}});
  }
  std::vector<std::string>& tensors = (*sources)[at].tensors;
  tensors.resize(std::max(tensors.size(), static_cast<size_t>(name.expert) + 1));
  tensors[static_cast<size_t>(name.expert)] = tensor;
  (*specs)[at].shape[0] = static_cast<int64_t>(tensors.size());
}

absl::Status Run(const std::string& directory, const std::string& out, const GgufTypeDef* linears,
                 const GgufTypeDef* embeddings) {
  LWQ_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(directory));
  LWQ_ASSIGN_OR_RETURN(const GgufTokenizerFiles files, ReadTokenizerFiles(directory));
  LWQ_ASSIGN_OR_RETURN(const DecoderSpec spec, ParseDecoderSpec(files.config));
  LWQ_ASSIGN_OR_RETURN(GgufModel model, MakeGgufModel(spec, Basename(directory)));
  std::vector<Source> sources;
  std::vector<GgufTensorSpec> specs;
  int64_t vocab_size = 0;
  for (const std::string& tensor : checkpoint->tensor_names()) {
    LWQ_ASSIGN_OR_RETURN(const GgufTensorName name, NameInGguf(*model.family, tensor));
    LWQ_ASSIGN_OR_RETURN(const TensorView view, checkpoint->Get(tensor));
    const bool embedding = name.name == "token_embd.weight";
    if (embedding) vocab_size = view.shape[0];
    const GgufType type = TypeFor(view.shape, embedding, linears, embeddings);
    if (name.expert >= 0) {
      AddExpert(tensor, name, {name.name, type, view.shape}, &sources, &specs);
      continue;
    }
    // llama.cpp wants the router in F32.
    const bool router = name.name.find("ffn_gate_inp") != std::string::npos;
    specs.push_back({name.name, router ? GgufType::kF32 : type, view.shape});
    sources.push_back({{tensor}, name, {}});
  }
  for (const GgufRopeTensor& rope : model.rope_tensors) {
    specs.push_back({rope.name, GgufType::kF32, {static_cast<int64_t>(rope.values.size())}});
    sources.push_back({{}, {}, rope.values});
  }
  LWQ_RETURN_IF_ERROR(SetGgufTokenizer(files, vocab_size, &model.metadata));
  LWQ_ASSIGN_OR_RETURN(const GgufLayout layout, LayOutGguf(model.metadata, specs));
  std::printf("%lld\n", static_cast<long long>(layout.file_bytes));
  LWQ_ASSIGN_OR_RETURN(const auto writer, GgufWriter::Create(out, layout));
  for (size_t i = 0; i < specs.size(); ++i) {
    LWQ_RETURN_IF_ERROR(WriteTensor(*checkpoint, model, sources[i], specs[i], writer.get()));
  }
  return writer->Finish();
}

}  // namespace
}  // namespace lwq

int main(int argc, char** argv) {
  const lwq::GgufTypeDef* linears = argc == 5 ? lwq::FindGgufType(argv[3]) : nullptr;
  const lwq::GgufTypeDef* embeddings = argc == 5 ? lwq::FindGgufType(argv[4]) : nullptr;
  if (linears == nullptr || embeddings == nullptr) {
    std::fprintf(stderr, "usage: write_gguf MODEL_DIR OUT LINEARS EMBEDDINGS\n");
    return 2;
  }
  const absl::Status status = lwq::Run(argv[1], argv[2], linears, embeddings);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}
