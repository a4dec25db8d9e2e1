// fp8-row-a8: weights in E4M3 (tensor/fp8.h) with a scale a row, and inputs rounded alike, each
// token by a scale of its own. Value [n, k] = scale[n] * code[n, k].
//
// Parts: codes F8_E4M3 [out, in]; scales [out, 1] in the source's 16-bit dtype, F16 for F32
// sources.
#pragma once

#include <vector>

#include "worker/engine/format/weight_format.h"

namespace lwq {

class Fp8RowFormat final : public WeightFormat {
 public:
  static const Fp8RowFormat* Find();

  // To nearest, in host memory: there is nothing to choose but the scale, which makes the row's
  // largest weight the largest value. `weight` [out, in], finite.
  EncodedLinear Encode(ConstMatrixView weight, DType source) const;

  const Fp8RowFormat* fp8() const override { return this; }
  ActivationRule activation_rule() const override { return ActivationRule::kFp8PerToken; }
  absl::Status Accepts(int64_t out_features, int64_t in_features) const override;
  std::vector<PartSpec> Parts(int64_t out_features, int64_t in_features,
                              DType source) const override;
  absl::Status Dequantize(absl::string_view module, absl::Span<const TensorView> parts,
                          int64_t first_row, MatrixView out) const override;

 private:
  Fp8RowFormat();
};

}  // namespace lwq
