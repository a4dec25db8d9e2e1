// How the weight of one linear is stored: a registry, and the one name for "what a linear becomes"
// in plans, costs, cache keys, blobs and reports. A format has an id ("int4-g128", "dense"), never
// just a width: two formats may take the same bytes, and one may take no codes at all.
//
// Adding one: format/<file>.cc that defines WeightFormatDefs::<file>, and a line in
// weight_formats.def. How a format's tensors lie in an artifact is the artifact format's matter
// (plan/artifact_format.h); a stored blob holds the parts as they are described here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/engine/tensor/activation_rule.h"
#include "worker/engine/tensor/matrix.h"
#include "worker/engine/tensor/tensor_view.h"

namespace lwq {

class Fp8RowFormat;
class GgufFormat;
class GridFormat;

// One tensor of a stored linear: "codes", "scales", "zeros"; "blocks"; "weight" when dense.
struct PartSpec {
  absl::string_view name;  // lives for ever
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;

  int64_t size_bytes() const;
};

// A part with its content.
struct EncodedPart {
  PartSpec spec;
  std::string bytes;  // exactly spec.size_bytes(), little-endian
};
// The parts of one linear, in the order of WeightFormat::Parts.
using EncodedLinear = std::vector<EncodedPart>;

// Immutable and thread-safe; every instance lives as long as the process, so that pointers are
// compared and kept.
class WeightFormat {
 public:
  virtual ~WeightFormat() = default;
  WeightFormat(const WeightFormat&) = delete;
  WeightFormat& operator=(const WeightFormat&) = delete;

  // Lower-case letters, digits, dashes and underscores; stored in records and keys, so it never
  // changes.
  const std::string& id() const { return id_; }
  // For people: "4-bit in groups of 128".
  const std::string& label() const { return label_; }
  // True of the one format that keeps the source's own bytes.
  bool dense() const { return dense_; }
  // The format as integers on a grid, for methods that round to one; null when it is none.
  virtual const GridFormat* grid() const { return nullptr; }
  // The format as 8-bit floats with a scale a row; null when it is none.
  virtual const Fp8RowFormat* fp8() const { return nullptr; }
  // The format as blocks of a GGUF type; null when it is none.
  virtual const GgufFormat* gguf() const { return nullptr; }
  // What a linear of this format does to its inputs before it multiplies.
  virtual ActivationRule activation_rule() const { return ActivationRule::kNone; }

  // INVALID_ARGUMENT "FORMAT_SHAPE" says why a weight [out, in] cannot be stored so.
  virtual absl::Status Accepts(int64_t out_features, int64_t in_features) const = 0;
  // The parts of a weight [out, in] that Accepts, of a model whose weights are of `source` dtype.
  virtual std::vector<PartSpec> Parts(int64_t out_features, int64_t in_features,
                                      DType source) const = 0;
  // Fills `out` [rows, in_features] with the weights of rows [first_row, first_row + rows), in F32.
  // `parts` are as Parts describes them (CheckParts). INVALID_ARGUMENT "NON_FINITE_WEIGHTS" for a
  // scale or weight that is NaN or infinite; `module` is for the message.
  virtual absl::Status Dequantize(absl::string_view module, absl::Span<const TensorView> parts,
                                  int64_t first_row, MatrixView out) const = 0;

  // Sum of the parts' sizes.
  int64_t PartBytes(int64_t out_features, int64_t in_features, DType source) const;

 protected:
  WeightFormat(std::string id, std::string label, bool dense)
      : id_(std::move(id)), label_(std::move(label)), dense_(dense) {}

 private:
  const std::string id_;
  const std::string label_;
  const bool dense_;
};

// Several formats of one kind, told apart by their parameters.
struct WeightFormatDef {
  absl::string_view name;
  absl::string_view help;  // one line
  // The format of that id; null when it is none of this family's.
  const WeightFormat* (*find)(absl::string_view id);
};

// Names of the definitions listed in weight_formats.def.
struct WeightFormatDefs {
#define LWQ_WEIGHT_FORMAT(file) static const WeightFormatDef file;
#include "worker/engine/format/weight_formats.def"
#undef LWQ_WEIGHT_FORMAT
};
absl::Span<const WeightFormatDef* const> WeightFormatKinds();

// INVALID_ARGUMENT "FORMAT_UNKNOWN" says which ids there are.
absl::StatusOr<const WeightFormat*> FindWeightFormat(absl::string_view id);
// The source's own weights, untouched.
const WeightFormat* DenseFormat();

// A linear as it is stored. Borrows the parts' bytes.
struct StoredLinear {
  const WeightFormat* format = nullptr;
  int64_t out_features = 0;
  int64_t in_features = 0;
  std::vector<TensorView> parts;  // in the order of format->Parts
};
// DATA_LOSS "PACKED_SHAPE" naming the part, found and expected, unless the parts have exactly the
// dtypes and shapes of the format's. Scales of any weight dtype are taken.
absl::Status CheckParts(absl::string_view module, const StoredLinear& linear);

// Dequantizes a whole stored linear into `out` [out_features, in_features]; INVALID_ARGUMENT
// "CONFIG_MISMATCH" for another shape.
absl::Status DequantizeLinear(absl::string_view module, const StoredLinear& linear, MatrixView out);

}  // namespace lwq
