#include "worker/engine/artifact/gguf_weights.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/artifact/gguf_file_plan.h"
#include "worker/engine/gguf/gguf_reader.h"

namespace lwq {
namespace {

class GgufWeights : public WeightSource {
 public:
  GgufWeights(std::unique_ptr<GgufFile> file, GgufModel model)
      : file_(std::move(file)), model_(std::move(model)) {}

  absl::Status ReadLinear(absl::string_view module, MatrixView out) const override {
    return ReadDense(absl::StrCat(module, ".weight"), 0, out);
  }

  absl::Status ReadDense(absl::string_view tensor, int64_t first_row,
                         MatrixView out) const override {
    LWQ_ASSIGN_OR_RETURN(const GgufTensorName name, NameInGguf(*model_.family, tensor));
    const int index = file_->Find(name.name);
    if (index < 0) {
      return Failure(reasons::kTensorMissing,
                     absl::StrCat("the GGUF file has no tensor ", name.name, " (", tensor, ")"));
    }
    const GgufTensorSpec& spec = file_->header().tensors[static_cast<size_t>(index)];
    const size_t dims = spec.shape.size();
    const int64_t rows = dims == 0 ? 0 : dims == 1 ? 1 : spec.shape[dims - 2];
    const int64_t experts = dims == 3 ? spec.shape[0] : 1;
    const int64_t expert = std::max<int64_t>(name.expert, 0);
    if (dims == 0 || dims > 3 || (dims == 3) != (name.expert >= 0) || expert >= experts ||
        out.cols != spec.shape.back() || first_row < 0 || out.rows < 0 ||
        first_row > rows - out.rows) {
      return Failure(reasons::kConfigMismatch,
                     absl::StrCat("tensor ", name.name, " is [", absl::StrJoin(spec.shape, ", "),
                                  "], rows ", first_row, " to ", first_row + out.rows, " of ",
                                  out.cols, " are needed for ", tensor));
    }
    const int64_t heads = name.permuted_query ? model_.num_heads
                          : name.permuted_key ? model_.num_kv_heads
                                              : 0;
    const uint8_t* bytes = file_->Bytes(index).data() +
                           expert * rows * DefOf(spec.type).RowBytes(spec.shape.back());
    return Read(spec, bytes, name.plus_one, heads, first_row, out);
  }

  bool HasDense(absl::string_view tensor) const override {
    const absl::StatusOr<GgufTensorName> name = NameInGguf(*model_.family, tensor);
    return name.ok() && file_->Find(name->name) >= 0;
  }

 private:
  // Rows [first_row, first_row + out.rows) of the source's order.
  static absl::Status Read(const GgufTensorSpec& spec, const uint8_t* bytes, bool plus_one,
                           int64_t heads, int64_t first_row, MatrixView out) {
    const GgufTypeDef& type = DefOf(spec.type);
    const int64_t row_bytes = type.RowBytes(out.cols);
    if (spec.shape.size() == 1) {
      std::vector<float> values(static_cast<size_t>(out.cols));
      DequantizeRow(type, bytes, out.cols, values.data());
      for (int64_t i = 0; i < out.cols; ++i) {
        out.data[heads > 0 ? PermutedRow(i, out.cols, heads) : i] = values[static_cast<size_t>(i)];
      }
    } else {
      const int64_t rows = spec.shape[spec.shape.size() - 2];
      // Where rows are reordered, all are gone through to find those wanted.
      const int64_t begin = heads > 0 ? 0 : first_row;
      const int64_t end = heads > 0 ? rows : first_row + out.rows;
      for (int64_t r = begin; r < end; ++r) {
        const int64_t at = (heads > 0 ? PermutedRow(r, rows, heads) : r) - first_row;
        if (at < 0 || at >= out.rows) continue;
        DequantizeRow(type, bytes + r * row_bytes, out.cols, out.Row(at));
      }
    }
    return Finish(spec.name, plus_one, out);
  }

  static absl::Status Finish(const std::string& name, bool plus_one, MatrixView out) {
    for (int64_t r = 0; r < out.rows; ++r) {
      float* row = out.Row(r);
      for (int64_t c = 0; c < out.cols; ++c) {
        if (plus_one) row[c] -= 1.0f;
        if (std::isfinite(row[c])) continue;
        return Failure(reasons::kNonFiniteWeights,
                       absl::StrCat("tensor ", name, ": row ", r, ", column ", c, " is ", row[c]));
      }
    }
    return absl::OkStatus();
  }

  const std::unique_ptr<GgufFile> file_;
  const GgufModel model_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WeightSource>> OpenGgufWeights(const std::string& directory,
                                                              const std::string& source_directory) {
  LWQ_ASSIGN_OR_RETURN(const DecoderSpec spec, ReadDecoderSpec(source_directory));
  LWQ_ASSIGN_OR_RETURN(GgufModel model, MakeGgufModel(spec, /*name=*/""));
  LWQ_ASSIGN_OR_RETURN(auto file, GgufFile::Open(JoinPath(directory, kGgufFileName)));
  return std::make_unique<GgufWeights>(std::move(file), std::move(model));
}

}  // namespace lwq
