#include "worker/engine/format/gguf.h"

#include <cmath>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/reasons.h"

namespace lwq {
namespace {

const WeightFormat* FindById(absl::string_view id) {
  for (const GgufTypeDef* type : GgufTypes()) {
    if (type->shape != nullptr && GgufFormat::Find(*type)->id() == id) {
      return GgufFormat::Find(*type);
    }
  }
  return nullptr;
}

}  // namespace

GgufFormat::GgufFormat(const GgufTypeDef& type)
    : WeightFormat(absl::StrCat("gguf-", absl::AsciiStrToLower(type.name)), std::string(type.name),
                   /*dense=*/false),
      type_(type) {}

const GgufFormat* GgufFormat::Find(const GgufTypeDef& type) {
  constexpr size_t kMaxTypes = 64;  // ggml's numbers are below it
  static const auto& formats = *[] {
    auto* by_number = new std::vector<const GgufFormat*>(kMaxTypes);
    for (const GgufTypeDef* one : GgufTypes()) {
      if (one->shape != nullptr) {
        (*by_number)[static_cast<size_t>(one->type)] = new GgufFormat(*one);
      }
    }
    return by_number;
  }();
  return formats[static_cast<size_t>(type.type)];
}

absl::Status GgufFormat::Accepts(int64_t, int64_t in_features) const {
  if (in_features % type_.block_size == 0) return absl::OkStatus();
  return Failure(reasons::kFormatShape,
                 absl::StrCat(type_.name, " has blocks of ", type_.block_size,
                              ", which do not divide its in_features ", in_features));
}

std::vector<PartSpec> GgufFormat::Parts(int64_t out_features, int64_t in_features, DType) const {
  return {{"blocks", DType::kU8, {out_features, type_.RowBytes(in_features)}}};
}

absl::Status GgufFormat::Dequantize(absl::string_view module, absl::Span<const TensorView> parts,
                                    int64_t first_row, MatrixView out) const {
  const int64_t row_bytes = type_.RowBytes(out.cols);
  for (int64_t r = 0; r < out.rows; ++r) {
    float* row = out.Row(r);
    DequantizeRow(type_, parts[0].bytes.data() + (first_row + r) * row_bytes, out.cols, row);
    for (int64_t c = 0; c < out.cols; ++c) {
      if (std::isfinite(row[c])) continue;
      return Failure(reasons::kNonFiniteWeights,
                     absl::StrCat(module, ": the ", type_.name, " block of row ", first_row + r,
                                  ", column ", c,
                                  " has a scale that is not "
                                  "finite"));
    }
  }
  return absl::OkStatus();
}

constinit const WeightFormatDef WeightFormatDefs::gguf = {
    .name = "gguf",
    .help = "gguf-<type>, such as gguf-q4_k (blocks of llama.cpp)",
    .find = &FindById,
};

}  // namespace lwq
