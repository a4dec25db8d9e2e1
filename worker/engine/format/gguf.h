// gguf-<type>: rows of GGUF blocks, as llama.cpp reads them. "gguf-q4_k", "gguf-iq4_xs": the
// integer types of worker/engine/gguf/block_type.h in lower case. docs/formats/gguf.md.
//
// Parts: blocks U8 [out, bytes of a row].
#pragma once

#include <vector>

#include "worker/engine/format/weight_format.h"
#include "worker/engine/gguf/block_type.h"

namespace lwq {

class GgufFormat final : public WeightFormat {
 public:
  // The format of a type that has a shape.
  static const GgufFormat* Find(const GgufTypeDef& type);

  const GgufTypeDef& type() const { return type_; }

  const GgufFormat* gguf() const override { return this; }
  absl::Status Accepts(int64_t out_features, int64_t in_features) const override;
  std::vector<PartSpec> Parts(int64_t out_features, int64_t in_features,
                              DType source) const override;
  absl::Status Dequantize(absl::string_view module, absl::Span<const TensorView> parts,
                          int64_t first_row, MatrixView out) const override;

 private:
  explicit GgufFormat(const GgufTypeDef& type);

  const GgufTypeDef& type_;
};

}  // namespace lwq
