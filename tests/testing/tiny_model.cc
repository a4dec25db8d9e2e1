#include "tests/testing/tiny_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/engine/tensor/half.h"

namespace lwq::testing {
namespace {

constexpr int kOutlierStride = 16;
constexpr int64_t kBlockValues = int64_t{1} << 20;

enum class Outliers { kNone, kNorm, kColumns };

struct TensorPlan {
  std::string name;
  int64_t rows = 1;
  int64_t cols = 0;
  bool is_vector = false;
  double mean = 0;
  double deviation = 0;
  Outliers outliers = Outliers::kNone;
};

uint64_t Mix(uint64_t x) {  // splitmix64's finaliser
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Mean 0, variance 1: the sum of four uniform 16-bit numbers (variance 1/12 each), scaled by
// sqrt(12/4). No call of a math library, so the same bits everywhere.
double NearlyNormal(uint64_t key, uint64_t index) {
  const uint64_t bits = Mix(key ^ Mix(index));
  double sum = 0;
  for (int shift = 0; shift < 64; shift += 16)
    sum += double(((bits >> shift) & 0xffffu) + 0.5) / 65536;
  return (sum - 2) * 1.7320508075688772;
}

uint64_t KeyOf(const std::string& name, uint64_t seed) {
  uint64_t key = Mix(seed);
  for (unsigned char c : name) key = Mix(key ^ c);
  return key;
}

std::vector<TensorPlan> PlanTensors(const TinyModelOptions& o) {
  const int64_t h = o.hidden_size, f = o.intermediate_size, d = h / o.num_heads;
  const int64_t kv = d * o.num_kv_heads;
  std::vector<TensorPlan> plan;
  auto matrix = [&](std::string name, int64_t rows, int64_t cols, double gain, Outliers outliers) {
    plan.push_back(
        {std::move(name), rows, cols, false, 0, gain / std::sqrt(double(cols)), outliers});
  };
  auto norm = [&](std::string name, Outliers outliers) {
    plan.push_back({std::move(name), 1, h, true, 1, 0.1, outliers});
  };
  matrix("model.embed_tokens.weight", o.vocab_size, h, 2, Outliers::kNone);
  for (int l = 0; l < o.num_layers; ++l) {
    const std::string p = absl::StrCat("model.layers.", l, ".");
    norm(p + "input_layernorm.weight", Outliers::kNorm);
    matrix(p + "self_attn.q_proj.weight", h, h, 1.5, Outliers::kColumns);
    matrix(p + "self_attn.k_proj.weight", kv, h, 1.5, Outliers::kColumns);
    matrix(p + "self_attn.v_proj.weight", kv, h, 1, Outliers::kColumns);
    matrix(p + "self_attn.o_proj.weight", h, h, 0.5, Outliers::kNone);
    norm(p + "post_attention_layernorm.weight", Outliers::kNorm);
    matrix(p + "mlp.gate_proj.weight", f, h, 1, Outliers::kColumns);
    matrix(p + "mlp.up_proj.weight", f, h, 1, Outliers::kColumns);
    matrix(p + "mlp.down_proj.weight", h, f, 0.5, Outliers::kNone);
  }
  norm("model.norm.weight", Outliers::kNone);
  if (!o.tied_embeddings) matrix("lm_head.weight", o.vocab_size, h, 2, Outliers::kNone);
  return plan;
}

int64_t BytesOf(const TensorPlan& t, DType dtype) { return t.rows * t.cols * SizeOf(dtype); }

double ValueAt(const TensorPlan& t, const TinyModelOptions& o, uint64_t key, int64_t index) {
  double value = t.mean + t.deviation * NearlyNormal(key, static_cast<uint64_t>(index));
  if (t.outliers != Outliers::kNone && (index % t.cols) % kOutlierStride == 0) {
    const int e = t.outliers == Outliers::kNorm ? o.outlier_exponent : -o.outlier_exponent;
    value = std::ldexp(value, e);
  }
  return value;
}

void Store(double value, DType dtype, uint8_t* out) {
  const float f = static_cast<float>(value);
  if (dtype == DType::kF32) {
    std::memcpy(out, &f, sizeof(f));
    return;
  }
  const uint16_t half = dtype == DType::kF16 ? FloatToF16(f) : FloatToBF16(f);
  std::memcpy(out, &half, sizeof(half));
}

absl::Status WriteShard(const std::vector<TensorPlan>& tensors, const TinyModelOptions& o,
                        const std::string& path) {
  std::string header = "{\"__metadata__\":{\"format\":\"pt\"}";
  int64_t offset = 0;
  for (const TensorPlan& t : tensors) {
    const int64_t end = offset + BytesOf(t, o.dtype);
    absl::StrAppend(&header, ",\"", t.name, "\":{\"dtype\":\"", NameOf(o.dtype), "\",\"shape\":[",
                    t.is_vector ? absl::StrCat(t.cols) : absl::StrCat(t.rows, ",", t.cols),
                    "],\"data_offsets\":[", offset, ",", end, "]}");
    offset = end;
  }
  header += "}";
  header.append((8 - header.size() % 8) % 8, ' ');
  LWQ_ASSIGN_OR_RETURN(auto writer, FileWriter::Create(path));
  uint8_t length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<uint8_t>(uint64_t{header.size()} >> (8 * i));
  LWQ_RETURN_IF_ERROR(writer->Append(absl::Span<const uint8_t>(length, 8)));
  LWQ_RETURN_IF_ERROR(writer->Append(header));
  std::vector<uint8_t> block;
  for (const TensorPlan& t : tensors) {
    const uint64_t key = KeyOf(t.name, o.seed);
    const int size = SizeOf(o.dtype);
    for (int64_t begin = 0; begin < t.rows * t.cols; begin += kBlockValues) {
      const int64_t count = std::min(kBlockValues, t.rows * t.cols - begin);
      block.resize(static_cast<size_t>(count * size));
      for (int64_t i = 0; i < count; ++i) {
        Store(ValueAt(t, o, key, begin + i), o.dtype, block.data() + i * size);
      }
      LWQ_RETURN_IF_ERROR(writer->Append(absl::Span<const uint8_t>(block)));
    }
  }
  return writer->Finish();
}

absl::Status WriteWeights(const TinyModelOptions& o, const std::string& directory) {
  const std::vector<TensorPlan> plan = PlanTensors(o);
  if (o.num_shards == 1) return WriteShard(plan, o, JoinPath(directory, "model.safetensors"));
  std::vector<std::string> map;
  int64_t total = 0;
  size_t first = 0;
  for (int s = 0; s < o.num_shards; ++s) {
    const std::string file = absl::StrFormat("model-%05d-of-%05d.safetensors", s + 1, o.num_shards);
    const size_t end = plan.size() * (s + 1) / o.num_shards;
    const std::vector<TensorPlan> part(plan.begin() + first, plan.begin() + end);
    for (const TensorPlan& t : part) {
      map.push_back(absl::StrCat("    \"", t.name, "\": \"", file, "\""));
      total += BytesOf(t, o.dtype);
    }
    LWQ_RETURN_IF_ERROR(WriteShard(part, o, JoinPath(directory, file)));
    first = end;
  }
  return WriteFileAtomically(
      JoinPath(directory, "model.safetensors.index.json"),
      absl::StrCat("{\n  \"metadata\": {\"total_size\": ", total, "},\n  \"weight_map\": {\n",
                   absl::StrJoin(map, ",\n"), "\n  }\n}\n"));
}

std::string ConfigJson(const TinyModelOptions& o) {
  const char* dtype = o.dtype == DType::kF32   ? "float32"
                      : o.dtype == DType::kF16 ? "float16"
                                               : "bfloat16";
  return absl::StrCat(
      "{\n  \"architectures\": [\"LlamaForCausalLM\"],\n  \"model_type\": \"llama\",\n",
      "  \"hidden_size\": ", o.hidden_size, ",\n  \"intermediate_size\": ", o.intermediate_size,
      ",\n  \"num_hidden_layers\": ", o.num_layers, ",\n  \"num_attention_heads\": ", o.num_heads,
      ",\n  \"num_key_value_heads\": ", o.num_kv_heads,
      ",\n  \"head_dim\": ", o.hidden_size / o.num_heads, ",\n  \"vocab_size\": ", o.vocab_size,
      ",\n  \"max_position_embeddings\": ", o.max_positions,
      ",\n  \"rms_norm_eps\": 1e-05,\n  \"rope_theta\": 10000.0,\n  \"hidden_act\": \"silu\",\n",
      "  \"tie_word_embeddings\": ", o.tied_embeddings ? "true" : "false",
      ",\n  \"attention_bias\": false,\n  \"mlp_bias\": false,\n  \"bos_token_id\": 1,\n",
      "  \"eos_token_id\": 2,\n  \"torch_dtype\": \"", dtype, "\"\n}\n");
}

absl::Status CheckOptions(const TinyModelOptions& o) {
  const bool sizes = o.num_layers > 0 && o.hidden_size > 0 && o.intermediate_size > 0 &&
                     o.num_heads > 0 && o.num_kv_heads > 0 && o.vocab_size > 0 &&
                     o.max_positions > 0 && o.hidden_size % o.num_heads == 0 &&
                     (o.hidden_size / o.num_heads) % 2 == 0 && o.num_heads % o.num_kv_heads == 0;
  const bool shards = o.num_shards >= 1 && o.num_shards <= 9 * o.num_layers + 2;
  if (sizes && shards && IsWeightFloat(o.dtype) && std::abs(o.outlier_exponent) <= 8) {
    return absl::OkStatus();
  }
  return InvalidFailure(
      "TINY_MODEL_OPTIONS",
      "sizes must be positive, heads divide hidden_size and kv heads the heads, a "
      "head be even, shards be at most the tensors, and |outlier exponent| <= 8");
}

}  // namespace

absl::Status WriteTinyModel(const TinyModelOptions& options, const std::string& directory,
                            const std::string& tokenizer_source) {
  LWQ_RETURN_IF_ERROR(CheckOptions(options));
  LWQ_RETURN_IF_ERROR(MakeDirectories(directory));
  LWQ_RETURN_IF_ERROR(WriteWeights(options, directory));
  if (options.vocab_size >= kSampleVocabSize) {
    for (const char* name : {"tokenizer.json", "tokenizer.model", "tokenizer_config.json",
                             "special_tokens_map.json"}) {
      LWQ_ASSIGN_OR_RETURN(auto content,
                           ReadFile(JoinPath(tokenizer_source, name), int64_t{1} << 26));
      LWQ_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(directory, name), content));
    }
  }
  return WriteFileAtomically(JoinPath(directory, "config.json"), ConfigJson(options));
}

}  // namespace lwq::testing
