#include "worker/engine/gguf/gguf_tensors.h"

#include <algorithm>
#include <cstdint>

#include "absl/container/btree_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/gguf/gguf_config.h"
#include "worker/engine/gguf/gguf_keys.h"

namespace lwq {
namespace {

constexpr int64_t kMostHeads = 1 << 16;
constexpr int64_t kMostParts = 1 << 16;
// Of rope: config.json has what they say.
constexpr absl::string_view kNotWeights[] = {"rope_freqs.weight", "rope_factors_long.weight",
                                             "rope_factors_short.weight"};

class GgufRows : public RowCoding {
 public:
  // `heads`: the rows are those of PermutedRow with so many heads; 0: in order.
  GgufRows(const GgufTypeDef& type, int64_t heads, bool plus_one)
      : type_(type), heads_(heads), plus_one_(plus_one) {}

  void Read(const TensorView& tensor, int64_t first_row, MatrixView out) const override {
    const int64_t row_bytes = type_.RowBytes(out.cols);
    const bool vector = tensor.shape.size() == 1;
    for (int64_t r = 0; r < out.rows; ++r) {
      const int64_t row = vector || heads_ == 0
                              ? first_row + r
                              : RowWhenPermuted(first_row + r, tensor.shape[0], heads_);
      DequantizeRow(type_, tensor.bytes.data() + row * row_bytes, out.cols, out.Row(r));
      if (!plus_one_) continue;
      for (int64_t c = 0; c < out.cols; ++c) out.Row(r)[c] -= 1.0f;
    }
    if (!vector || heads_ == 0) return;
    const std::vector<float> values(out.data, out.data + out.cols);
    for (int64_t i = 0; i < out.cols; ++i) {
      out.data[i] = values[static_cast<size_t>(RowWhenPermuted(i, out.cols, heads_))];
    }
  }

  std::string Id() const override {
    return absl::StrCat("gguf ", type_.name, ", heads ", heads_, plus_one_ ? ", plus one" : "");
  }

 private:
  const GgufTypeDef& type_;
  const int64_t heads_;
  const bool plus_one_;
};

DType FloatsOf(GgufType type) {
  return type == GgufType::kF16    ? DType::kF16
         : type == GgufType::kBF16 ? DType::kBF16
                                   : DType::kF32;
}

absl::Status BadShape(const GgufTensorSpec& spec, absl::string_view expected) {
  return Failure(reasons::kGgufTensor,
                 absl::StrCat("tensor ", spec.name, " of the GGUF file has the shape [",
                              absl::StrJoin(spec.shape, ", "), "], expected ", expected));
}

// Adds the tensors of a file one by one.
class TensorLister {
 public:
  TensorLister(const GgufFamilyDef& family, DType read_as, int64_t heads, int64_t kv_heads,
               int64_t experts, std::vector<std::unique_ptr<RowCoding>>* codings,
               std::vector<std::pair<std::string, TensorView>>* tensors)
      : family_(family),
        read_as_(read_as),
        heads_(heads),
        kv_heads_(kv_heads),
        experts_(experts),
        codings_(*codings),
        tensors_(*tensors) {}

  absl::Status Add(const GgufTensorSpec& spec, absl::Span<const uint8_t> bytes) {
    LWQ_ASSIGN_OR_RETURN(const std::string name, NameOutsideGguf(family_, spec.name));
    const bool stacked = absl::StrContains(name, "*");
    TensorView view{DType::kF32, spec.shape, bytes};
    // The gate of a shared expert is a vector in llama.cpp, a matrix of one row elsewhere.
    if (absl::EndsWith(name, "shared_expert_gate.weight") && spec.shape.size() == 1) {
      view.shape.insert(view.shape.begin(), 1);
    }
    const bool is_vector =
        absl::EndsWith(spec.name, "norm.weight") || absl::EndsWith(spec.name, ".bias");
    if (view.shape.size() != (stacked ? 3 : is_vector ? 1 : 2)) {
      return BadShape(spec,
                      stacked ? "[experts, out, in]" : "a matrix, of a norm or bias a vector");
    }
    if (!stacked) return AddOne(spec, name, std::move(view));
    const int64_t experts = spec.shape[0];
    // Each becomes a tensor, and the shape may claim any number of empty ones.
    if (experts != experts_) return BadShape(spec, absl::StrCat(experts_, " experts"));
    view.shape.erase(view.shape.begin());
    const size_t each = bytes.size() / static_cast<size_t>(experts);
    for (int64_t e = 0; e < experts; ++e) {
      view.bytes = bytes.subspan(static_cast<size_t>(e) * each, each);
      LWQ_RETURN_IF_ERROR(AddOne(spec, absl::StrReplaceAll(name, {{"*", absl::StrCat(e)}}), view));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status AddOne(const GgufTensorSpec& spec, const std::string& name, TensorView view) {
    LWQ_ASSIGN_OR_RETURN(const GgufTensorName in_file, NameInGguf(family_, name));
    const int64_t heads = in_file.permuted_query ? heads_ : in_file.permuted_key ? kv_heads_ : 0;
    if (heads > 0 && view.shape[0] % (2 * heads) != 0) {
      return BadShape(spec, absl::StrCat("rows in ", heads, " heads of an even size"));
    }
    const DType stored = FloatsOf(spec.type);
    const bool router = absl::StrContains(spec.name, "ffn_gate_inp");
    view.dtype = spec.shape.size() < 2 || router ? stored : read_as_;
    const GgufTypeDef& type = DefOf(spec.type);
    if (type.shape != nullptr || stored != view.dtype || heads > 0 || in_file.plus_one) {
      codings_.push_back(std::make_unique<GgufRows>(type, heads, in_file.plus_one));
      view.coding = codings_.back().get();
    }
    tensors_.emplace_back(name, std::move(view));
    return absl::OkStatus();
  }

  const GgufFamilyDef& family_;
  const DType read_as_;
  const int64_t heads_, kv_heads_, experts_;
  std::vector<std::unique_ptr<RowCoding>>& codings_;
  std::vector<std::pair<std::string, TensorView>>& tensors_;
};

std::string Describe(const GgufHeader& header) {
  absl::btree_set<absl::string_view> types;
  for (const GgufTensorSpec& tensor : header.tensors) types.insert(DefOf(tensor.type).name);
  return absl::StrCat(absl::StrJoin(types, ", "), " in a GGUF file, read as ",
                      NameOf(GgufReadAs(header)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<GgufTensors>> GgufTensors::Open(const std::string& path) {
  auto opened = std::unique_ptr<GgufTensors>(new GgufTensors());
  LWQ_ASSIGN_OR_RETURN(opened->file_, GgufFile::Open(path));
  const GgufHeader& header = opened->file_->header();
  LWQ_ASSIGN_OR_RETURN(const GgufFamilyDef* family, GgufFamilyOf(header.metadata));
  GgufKeys split(header.metadata, "split");
  LWQ_ASSIGN_OR_RETURN(const int64_t parts, split.Whole("count", 0, kMostParts, 1));
  if (parts > 1) {
    return Failure(reasons::kGgufUnsupported,
                   absl::StrCat("the GGUF file is one of ", parts,
                                " parts: put them together with llama-gguf-split --merge"));
  }
  GgufKeys keys(header.metadata, family->architecture);
  LWQ_ASSIGN_OR_RETURN(const int64_t heads, keys.Whole("attention.head_count", 1, kMostHeads));
  LWQ_ASSIGN_OR_RETURN(const int64_t kv_heads,
                       keys.Whole("attention.head_count_kv", 1, heads, heads));
  LWQ_ASSIGN_OR_RETURN(const int64_t experts, keys.Whole("expert_count", 0, kMostGgufExperts, 0));
  TensorLister lister(*family, GgufReadAs(header), heads, kv_heads, experts, &opened->codings_,
                      &opened->tensors_);
  for (size_t i = 0; i < header.tensors.size(); ++i) {
    const GgufTensorSpec& spec = header.tensors[i];
    if (std::find(std::begin(kNotWeights), std::end(kNotWeights), spec.name) !=
        std::end(kNotWeights)) {
      continue;
    }
    LWQ_RETURN_IF_ERROR(lister.Add(spec, opened->file_->Bytes(static_cast<int>(i))));
  }
  opened->description_ = Describe(header);
  return opened;
}

}  // namespace lwq
