// How the quantized linears of an artifact of safetensors lie in its tensors: what compressed-tensors
// and GPTQ differ in, besides sizes (plan/artifact_format.h) and the dictionary in config.json
// (quantization_config.h). Writer, proof and reader go by it.
#pragma once

#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/engine/format/weight_format.h"
#include "worker/engine/plan/artifact_format.h"

namespace lwq {

// Finds a tensor by its full name.
using TensorLookup = absl::FunctionRef<absl::StatusOr<TensorView>(absl::string_view name)>;

// A linear found among tensors, its shapes checked: its format, and the tensors that hold it, in an
// order of the coding's own. Borrows them.
struct FoundLinear {
  const WeightFormat* format = nullptr;
  int64_t out_features = 0;
  int64_t in_features = 0;
  std::vector<TensorView> tensors;
  // Of a linear stored in activation order: stored input j, whose group is j / group size, is input
  // input_order[j] of the linear. Empty where inputs lie as they are.
  std::vector<int32_t> input_order;
};

// A stored linear, or some rows of one, and the memory of those of its parts that lie in no file.
struct OwnedLinear {
  StoredLinear linear;
  std::vector<std::string> bytes;
  int64_t first_row = 0;  // of all rows, where those that it has begin
};

class LinearCoding {
 public:
  virtual ~LinearCoding() = default;
  // What the name of one tensor of each quantized linear ends in, and no other's.
  virtual absl::string_view mark() const = 0;
  // `lookup` answers NOT_FOUND for a tensor that is not there; `declared` are the formats that
  // config.json speaks of. Errors: what lookup says; DATA_LOSS "PACKED_SHAPE" naming the tensor, found
  // and expected; DATA_LOSS "CONFIG_MISMATCH" for a format that is not declared; UNIMPLEMENTED
  // "QUANT_FORMAT_UNSUPPORTED" for groups of unequal sizes.
  virtual absl::StatusOr<FoundLinear> Find(
      absl::string_view module, TensorLookup lookup,
      const std::vector<const WeightFormat*>& declared) const = 0;
  // The parts of a found linear, its inputs as they are stored. Borrows its tensors.
  virtual absl::StatusOr<OwnedLinear> Read(absl::string_view module,
                                           const FoundLinear& found) const = 0;
  // The same of rows [first_row, first_row + rows), which the linear has, and of others where it
  // takes no memory.
  virtual absl::StatusOr<OwnedLinear> ReadRows(absl::string_view module, const FoundLinear& found,
                                               int64_t first_row, int64_t rows) const {
    static_cast<void>(first_row);
    static_cast<void>(rows);
    return Read(module, found);
  }
  // The content of the tensor of that name of a linear. It lies in the linear's parts or in `made`.
  // INTERNAL "NOT_PACKABLE" for what it cannot hold.
  virtual absl::StatusOr<TensorView> Tensor(absl::string_view name, const StoredLinear& linear,
                                            std::string& made) const = 0;
};

const LinearCoding& CodingOf(const ArtifactFormatDef& format);

// Whether linears of `declared` are stored as `found` [.., in_features]: a group that is the whole row
// counts as the row.
bool SameStorage(const WeightFormat& declared, const WeightFormat& found, int64_t in_features);

// DATA_LOSS "CONFIG_MISMATCH" unless one of `declared` is stored as the found linear is.
absl::Status CheckDeclared(absl::string_view module, const FoundLinear& found,
                           const std::vector<const WeightFormat*>& declared);

}  // namespace lwq
