#include "worker/engine/format/weight_format.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr const WeightFormatDef* kFamilies[] = {
#define LWQ_WEIGHT_FORMAT(file) &WeightFormatDefs::file,
#include "worker/engine/format/weight_formats.def"
#undef LWQ_WEIGHT_FORMAT
};

bool SamePart(const PartSpec& expected, const TensorView& found) {
  const bool dtype = expected.dtype == found.dtype ||
                     (IsWeightFloat(expected.dtype) && IsWeightFloat(found.dtype));
  return dtype && expected.shape == found.shape;
}

}  // namespace

int64_t PartSpec::size_bytes() const {
  int64_t n = SizeOf(dtype);
  for (int64_t d : shape) n *= d;
  return n;
}

int64_t WeightFormat::PartBytes(int64_t out_features, int64_t in_features, DType source) const {
  int64_t bytes = 0;
  for (const PartSpec& part : Parts(out_features, in_features, source)) bytes += part.size_bytes();
  return bytes;
}

absl::Span<const WeightFormatDef* const> WeightFormatKinds() { return kFamilies; }

absl::StatusOr<const WeightFormat*> FindWeightFormat(absl::string_view id) {
  for (const WeightFormatDef* family : kFamilies) {
    if (const WeightFormat* format = family->find(id)) return format;
  }
  return Failure(
      reasons::kFormatUnknown,
      absl::StrCat("there is no weight format \"", id.substr(0, 80), "\"; there are ",
                   absl::StrJoin(kFamilies, "; ", [](std::string* out, const auto* family) {
                     absl::StrAppend(out, family->help);
                   })));
}

absl::Status CheckParts(absl::string_view module, const StoredLinear& linear) {
  const std::vector<PartSpec> specs =
      linear.format->Parts(linear.out_features, linear.in_features, DType::kF16);
  if (specs.size() != linear.parts.size()) {
    return Failure(reasons::kPackedShape,
                   absl::StrCat(module, " has ", linear.parts.size(), " tensors, format ",
                                linear.format->id(), " has ", specs.size()));
  }
  for (size_t i = 0; i < specs.size(); ++i) {
    const TensorView& found = linear.parts[i];
    if (SamePart(specs[i], found)) continue;
    return Failure(
        reasons::kPackedShape,
        absl::StrCat(module, ": the ", specs[i].name, " are ", NameOf(found.dtype), " [",
                     absl::StrJoin(found.shape, ", "), "], expected ", NameOf(specs[i].dtype), " [",
                     absl::StrJoin(specs[i].shape, ", "), "] in format ", linear.format->id()));
  }
  return absl::OkStatus();
}

absl::Status DequantizeLinear(absl::string_view module, const StoredLinear& linear,
                              MatrixView out) {
  if (out.rows != linear.out_features || out.cols != linear.in_features) {
    return Failure(
        reasons::kConfigMismatch,
        absl::StrCat(module, " is stored as [", linear.out_features, ", ", linear.in_features,
                     "], [", out.rows, ", ", out.cols, "] is needed"));
  }
  return linear.format->Dequantize(module, linear.parts, 0, out);
}

}  // namespace lwq
