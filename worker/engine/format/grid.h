// Integers on a grid: value [n, k] = scale[n, k / group] * (code[n, k] - zero[n, k / group]), with
// the zero 2^(bits-1) when symmetric.
//
// Parts: codes I32 [out, ceil(in * bits / 32)] (pack_bits.h, one stream per row); scales [out,
// groups] in the source's 16-bit dtype, F16 for F32 sources; and when affine zeros I32
// [ceil(out * bits / 32), groups], one stream along out_features per group.
//
// int8-row-a8 is int8-row whose engines round the inputs too and multiply integers.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/engine/format/weight_format.h"

namespace lwq {

// A linear on a grid, in host memory.
struct GridCodes {
  int64_t out_features = 0;
  int64_t in_features = 0;
  std::vector<uint8_t> codes;  // [out, in]
  Matrix scales;               // [out, groups]
  Matrix zeros;                // [out, groups], integers; empty (0 x 0) when symmetric
};

class GridFormat final : public WeightFormat {
 public:
  static constexpr int kMaxBits = 8;

  // The format of these parameters; bits 1 to 8, group_size 0 (one group per row) or positive.
  static const GridFormat* Find(int bits, int64_t group_size, bool symmetric);
  // int8-row-a8.
  static const GridFormat* WithRoundedInputs();

  int bits() const { return bits_; }
  int64_t group_size() const { return group_size_; }  // 0: the row
  bool symmetric() const { return symmetric_; }
  int64_t NumGroups(int64_t in_features) const {
    return group_size_ == 0 ? 1 : in_features / group_size_;
  }
  // Scales are stored in the source's 16-bit dtype; for F32 sources in F16 (they are snapped so
  // that every one of them is exact in either).
  static DType ScaleDType(DType source);

  // INTERNAL "NOT_PACKABLE" when a code is out of its width's range, a scale is not exact in the
  // scale dtype, or a zero point is not an integer in range: what is stored must be what was
  // measured.
  absl::StatusOr<EncodedLinear> Encode(absl::string_view module, const GridCodes& linear,
                                       DType source) const;
  // The codes, scales and zeros as they were encoded.
  absl::StatusOr<GridCodes> Decode(absl::string_view module, const StoredLinear& stored) const;

  // The zero points of a linear that CheckParts found sound [out, groups]; empty when symmetric.
  Matrix Zeros(const StoredLinear& stored) const;

  const GridFormat* grid() const override { return this; }
  ActivationRule activation_rule() const override { return rule_; }
  absl::Status Accepts(int64_t out_features, int64_t in_features) const override;
  std::vector<PartSpec> Parts(int64_t out_features, int64_t in_features,
                              DType source) const override;
  absl::Status Dequantize(absl::string_view module, absl::Span<const TensorView> parts,
                          int64_t first_row, MatrixView out) const override;

 private:
  GridFormat(int bits, int64_t group_size, bool symmetric, ActivationRule rule);

  const int bits_;
  const int64_t group_size_;
  const bool symmetric_;
  const ActivationRule rule_;
};

}  // namespace lwq
