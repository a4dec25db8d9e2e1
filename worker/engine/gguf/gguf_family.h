// What differs between model families in a GGUF file, as data: names of tensors, keys, and what
// llama.cpp's graph of the architecture takes for granted. Facts: docs/formats/gguf.md.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace lwq {

// A module of a decoder layer, without "model.layers.N.", and its name without "blk.N."; or one
// outside of the layers, with its whole names. In a
// mixture of experts "*" stands for the number of the expert, whose tensors are stacked.
struct GgufModuleName {
  absl::string_view module;
  absl::string_view name;
};

// What llama.cpp's graph of an architecture can do where others cannot. What a model has beyond it
// is refused.
enum class GgufBiases { kNone, kQueryKeyValue, kAll };
enum class GgufRope {
  kPlain,   // linear and yarn scaling, which all do that have one rotary embedding
  kLlama3,  // and llama3, by divisors in a tensor
  kLong,    // longrope, by tensors, and nothing else
  kTwo      // Gemma 3: one for layers with a window, one, which linear may scale, for the others
};

struct GgufFamilyDef {
  absl::string_view name;
  absl::string_view architecture;                     // GGUF's own name
  absl::Span<const absl::string_view> model_classes;  // "architectures" of config.json
  absl::Span<const GgufModuleName> modules;           // besides those that all families have
  // Outside of the layers; empty: as Llama's.
  absl::Span<const GgufModuleName> model_modules;
  absl::string_view layers = "model.layers.";
  GgufBiases biases = GgufBiases::kNone;
  GgufRope rope = GgufRope::kPlain;
  bool interleaved_rope = false;  // llama.cpp rotates adjacent rows: those of q and k are permuted
  bool gemma = false;             // norms are stored with the 1 that the model adds; GELU; windows
  bool always_head_dim = false;   // key_length and value_length even where they follow
  bool head_dim_follows = false;  // llama.cpp's graph has no other than hidden / heads
  bool rope_dimension = false;    // rope.dimension_count
  bool vocab_size = false;        // is a key
  bool first_qwen =
      false;  // feed_forward_length is that of gate and up together; names in config.json
  bool experts = false;           // in every layer
  bool expert_sizes = false;      // expert_feed_forward_length is a key
  bool shares_normalized = true;  // experts' shares are divided by their sum
};

absl::Span<const GgufFamilyDef> GgufFamilies();
// By an architecture of config.json. UNIMPLEMENTED "ARCH_UNSUPPORTED" lists those there are.
absl::StatusOr<const GgufFamilyDef*> FindGgufFamily(absl::string_view model_class);

// Where a tensor of a Hugging Face checkpoint goes, and what is done to it on the way.
struct GgufTensorName {
  std::string name;
  int64_t expert = -1;          // its place in the stack [experts, out, in]; -1: not stacked
  bool permuted_query = false;  // rows in the order of PermutedRow, with the number of heads ...
  bool permuted_key = false;    // ... or of key-value heads
  bool plus_one = false;        // 1 is added to every value
};
// INVALID_ARGUMENT "TENSOR_UNKNOWN" when the family has no such tensor.
absl::StatusOr<GgufTensorName> NameInGguf(const GgufFamilyDef& family, absl::string_view tensor);

// The family of a file that says `architecture` and has experts or none. UNIMPLEMENTED
// "ARCH_UNSUPPORTED" lists those there are.
absl::StatusOr<const GgufFamilyDef*> FindGgufFamily(absl::string_view architecture, bool experts);
// What NameInGguf makes `tensor` of, with "*" for the expert's number where it is stacked.
// INVALID_ARGUMENT "TENSOR_UNKNOWN" when the family has no such tensor.
absl::StatusOr<std::string> NameOutsideGguf(const GgufFamilyDef& family, absl::string_view tensor);

// The source row that is row `row` of a permuted tensor with `rows` rows in `heads` heads: pairs
// that were half a head apart become neighbours.
constexpr int64_t PermutedRow(int64_t row, int64_t rows, int64_t heads) {
  const int64_t head_rows = rows / heads;
  const int64_t in_head = row % head_rows;
  return row - in_head + in_head / 2 + in_head % 2 * (head_rows / 2);
}
// The other way round: the permuted row that the source's row `row` is.
constexpr int64_t RowWhenPermuted(int64_t row, int64_t rows, int64_t heads) {
  const int64_t head_rows = rows / heads;
  const int64_t in_head = row % head_rows;
  const int64_t half = head_rows / 2;
  return row - in_head + in_head % half * 2 + in_head / half;
}

}  // namespace lwq
