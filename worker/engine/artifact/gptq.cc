#include "worker/engine/artifact/gptq.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/tensor/half.h"
#include "worker/engine/tensor/matrix.h"
#include "worker/engine/tensor/pack_bits.h"
#include "worker/engine/tensor/widen.h"

namespace lwq {
namespace {

// Whole words in both dimensions, as every reader of these files wants.
constexpr int64_t kFeatureMultiple = 32;

absl::Status WrongShape(absl::string_view module, absl::string_view suffix, const TensorView& found,
                        absl::string_view expected) {
  return Failure(reasons::kPackedShape,
                 absl::StrCat("tensor ", module, suffix, " is ", NameOf(found.dtype), " [",
                              absl::StrJoin(found.shape, ", "), "], expected ", expected));
}

absl::Status NotPackable(absl::string_view name, absl::string_view what) {
  return Failure(reasons::kNotPackable, absl::StrCat("packing ", name, ": ", what));
}

absl::Status Unreadable(absl::string_view module, absl::string_view what) {
  return Failure(reasons::kQuantFormatUnsupported, absl::StrCat(module, " ", what));
}

// Of `words` [rows, cols] the columns [first, first + count), as rows. In tiles: a column of a
// large matrix has a cache line for each value.
template <typename Word>
std::string Transposed(absl::Span<const uint8_t> words, int64_t rows, int64_t cols, int64_t first,
                       int64_t count) {
  constexpr int64_t kTile = 32;
  const int64_t end = first + count;
  std::string out(sizeof(Word) * static_cast<size_t>(rows * count), '\0');
  for (int64_t top = 0; top < rows; top += kTile) {
    for (int64_t left = first; left < end; left += kTile) {
      for (int64_t r = top; r < std::min(rows, top + kTile); ++r) {
        for (int64_t c = left; c < std::min(end, left + kTile); ++c) {
          std::memcpy(out.data() + sizeof(Word) * static_cast<size_t>((c - first) * rows + r),
                      words.data() + sizeof(Word) * static_cast<size_t>(r * cols + c),
                      sizeof(Word));
        }
      }
    }
  }
  return out;
}

std::string Transposed(const TensorView& tensor, int64_t first, int64_t count) {
  const int64_t rows = tensor.shape[0], cols = tensor.shape[1];
  return SizeOf(tensor.dtype) == 2 ? Transposed<uint16_t>(tensor.bytes, rows, cols, first, count)
                                   : Transposed<uint32_t>(tensor.bytes, rows, cols, first, count);
}

std::string Transposed(const TensorView& tensor) { return Transposed(tensor, 0, tensor.shape[1]); }

TensorView ViewOfPart(DType dtype, std::vector<int64_t> shape, const std::string& bytes) {
  return {dtype, std::move(shape), {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}};
}

struct Shapes {
  int bits = 0;
  int64_t groups = 0;
};

// The width as the words of a row of zero points give it, and what follows from it.
absl::StatusOr<Shapes> ReadShapes(absl::string_view module, FoundLinear& found) {
  const TensorView &weight = found.tensors[0], &zeros = found.tensors[1],
                   &scales = found.tensors[2];
  const bool matrix = weight.dtype == DType::kI32 && weight.shape.size() == 2 &&
                      weight.shape[0] > 0 && weight.shape[1] > 0 &&
                      weight.shape[1] % kFeatureMultiple == 0;
  if (!matrix) {
    return WrongShape(module, ".qweight", weight,
                      "I32 [in_features * bits / 32, out_features], out_features a multiple of 32");
  }
  const int64_t outs = weight.shape[1];
  if (scales.shape.size() != 2 || scales.shape[0] <= 0 || scales.shape[1] != outs ||
      !IsWeightFloat(scales.dtype)) {
    return WrongShape(module, ".scales", scales,
                      absl::StrCat("F16, BF16 or F32 [groups, ", outs, "]"));
  }
  Shapes shapes{0, scales.shape[0]};
  const int64_t per_bit = outs / kFeatureMultiple;
  if (zeros.dtype != DType::kI32 || zeros.shape.size() != 2 || zeros.shape[0] != shapes.groups ||
      zeros.shape[1] <= 0 || zeros.shape[1] % per_bit != 0 ||
      zeros.shape[1] / per_bit > GridFormat::kMaxBits) {
    return WrongShape(module, ".qzeros", zeros,
                      absl::StrCat("I32 [", shapes.groups, ", bits * ", outs,
                                   " / 32] for a width of 1 to 8 bits"));
  }
  shapes.bits = static_cast<int>(zeros.shape[1] / per_bit);
  // 32 codes are `bits` words; no more words than a file has bytes, so that this cannot overflow.
  const int64_t ins = weight.shape[0] / shapes.bits * kFeatureMultiple;
  if (weight.shape[0] % shapes.bits != 0 || ins % shapes.groups != 0) {
    return WrongShape(
        module, ".qweight", weight,
        absl::StrCat("rows of ", shapes.bits, " bits in ", shapes.groups, " equal groups"));
  }
  found.out_features = outs;
  found.in_features = ins;
  return shapes;
}

// The inputs group after group, as g_idx has them; nothing where that is the order they lie in.
absl::StatusOr<std::vector<int32_t>> ReadOrder(absl::string_view module, const TensorView& order,
                                               int64_t ins, int64_t groups) {
  if (order.dtype != DType::kI32 || order.shape != std::vector<int64_t>{ins}) {
    return WrongShape(module, ".g_idx", order, absl::StrCat("I32 [", ins, "]"));
  }
  const int64_t size = ins / groups;
  std::vector<int32_t> inputs(static_cast<size_t>(ins));
  std::vector<int64_t> filled(static_cast<size_t>(groups));
  bool in_order = true;
  for (int64_t k = 0; k < ins; ++k) {
    int32_t group = 0;
    std::memcpy(&group, order.bytes.data() + 4 * k, 4);
    if (group < 0 || group >= groups || filled[static_cast<size_t>(group)] == size) {
      return Unreadable(
          module, absl::StrCat("has in g_idx the group ", group, " for input ", k, ": expected ",
                               groups, " groups of ", size, " inputs each"));
    }
    inputs[static_cast<size_t>(group * size + filled[static_cast<size_t>(group)]++)] =
        static_cast<int32_t>(k);
    in_order = in_order && group == k / size;
  }
  if (in_order) inputs.clear();
  return inputs;
}

// Rows of codes with their inputs in another order.
std::string Reordered(const std::string& rows, int64_t num_rows, int bits,
                      const std::vector<int32_t>& order) {
  const int64_t ins = static_cast<int64_t>(order.size());
  const int64_t row_bytes = 4 * PackedWords(ins, bits);
  std::string out(rows.size(), '\0');
  std::vector<uint8_t> as_stored(order.size()), sorted(order.size());
  for (int64_t r = 0; r < num_rows; ++r) {
    UnpackBits(reinterpret_cast<const uint8_t*>(rows.data()) + r * row_bytes, ins, bits,
               as_stored.data());
    for (size_t j = 0; j < order.size(); ++j) {
      sorted[j] = as_stored[static_cast<size_t>(order[j])];
    }
    PackBits(sorted.data(), ins, bits, reinterpret_cast<uint8_t*>(out.data()) + r * row_bytes);
  }
  return out;
}

class PackedCoding final : public LinearCoding {
 public:
  // `less`: how much less than the zero point is stored.
  explicit PackedCoding(int less) : less_(less) {}

  absl::string_view mark() const override { return ".qweight"; }

  absl::StatusOr<FoundLinear> Find(
      absl::string_view module, TensorLookup lookup,
      const std::vector<const WeightFormat*>& declared) const override {
    FoundLinear found;
    for (const char* suffix : {".qweight", ".qzeros", ".scales"}) {
      LWQ_ASSIGN_OR_RETURN(TensorView tensor, lookup(absl::StrCat(module, suffix)));
      found.tensors.push_back(std::move(tensor));
    }
    LWQ_ASSIGN_OR_RETURN(const Shapes shapes, ReadShapes(module, found));
    if (const auto order = lookup(absl::StrCat(module, ".g_idx")); order.ok()) {
      LWQ_ASSIGN_OR_RETURN(found.input_order,
                           ReadOrder(module, *order, found.in_features, shapes.groups));
    }
    const int64_t group_size = shapes.groups == 1 ? 0 : found.in_features / shapes.groups;
    // Zero points in the middle may belong to either; then it is what config.json says.
    for (const bool symmetric : {true, false}) {
      if (symmetric && !AllInTheMiddle(found.tensors[1], shapes.bits)) continue;
      found.format = GridFormat::Find(shapes.bits, group_size, symmetric);
      if (!symmetric) LWQ_RETURN_IF_ERROR(CheckZeros(module, found.tensors[1], shapes.bits));
      if (CheckDeclared(module, found, declared).ok()) return found;
    }
    return CheckDeclared(module, found, declared);
  }

  absl::StatusOr<OwnedLinear> Read(absl::string_view module,
                                   const FoundLinear& found) const override {
    return ReadRows(module, found, 0, found.out_features);
  }

  // From a whole word of zero points to another: a copy, and no larger than what is asked for.
  absl::StatusOr<OwnedLinear> ReadRows(absl::string_view, const FoundLinear& found,
                                       int64_t first_row, int64_t rows) const override {
    const int64_t first = first_row / kFeatureMultiple * kFeatureMultiple;
    const int64_t words = (first_row + rows - first + kFeatureMultiple - 1) / kFeatureMultiple;
    const int64_t count = words * kFeatureMultiple;
    OwnedLinear owned{{found.format, count, found.in_features, {}}, {}, first};
    const GridFormat& grid = *found.format->grid();
    const TensorView &weight = found.tensors[0], &zeros = found.tensors[1],
                     &scales = found.tensors[2];
    owned.bytes.push_back(Transposed(weight, first, count));
    if (!found.input_order.empty()) {
      owned.bytes[0] = Reordered(owned.bytes[0], count, grid.bits(), found.input_order);
    }
    owned.bytes.push_back(Transposed(scales, first, count));
    if (!grid.symmetric()) owned.bytes.push_back(ZerosPart(zeros, grid.bits(), first, count));
    owned.linear.parts.push_back(ViewOfPart(DType::kI32, {count, weight.shape[0]}, owned.bytes[0]));
    owned.linear.parts.push_back(
        ViewOfPart(scales.dtype, {count, scales.shape[0]}, owned.bytes[1]));
    if (!grid.symmetric()) {
      owned.linear.parts.push_back(
          ViewOfPart(DType::kI32, {words * grid.bits(), zeros.shape[0]}, owned.bytes[2]));
    }
    return owned;
  }

  absl::StatusOr<TensorView> Tensor(absl::string_view name, const StoredLinear& linear,
                                    std::string& made) const override {
    const GridFormat* grid = linear.format->grid();
    if (grid == nullptr || !grid->symmetric()) {
      return NotPackable(name, absl::StrCat("GPTQ files hold no ", linear.format->label()));
    }
    const int64_t ins = linear.in_features, outs = linear.out_features;
    const int64_t groups = grid->NumGroups(ins);
    if (absl::EndsWith(name, ".qweight")) {
      made = Transposed(linear.parts[0]);
      return ViewOfPart(DType::kI32, {PackedWords(ins, grid->bits()), outs}, made);
    }
    if (absl::EndsWith(name, ".scales")) return Scales(name, linear.parts[1], made);
    if (absl::EndsWith(name, ".qzeros")) {
      made =
          Row(std::vector<uint8_t>(static_cast<size_t>(outs), Middle(grid->bits())), grid->bits());
      const std::string row = made;
      for (int64_t g = 1; g < groups; ++g) made += row;
      return ViewOfPart(DType::kI32, {groups, PackedWords(outs, grid->bits())}, made);
    }
    made.assign(static_cast<size_t>(4 * ins), '\0');
    for (int64_t k = 0; k < ins; ++k) {
      const int32_t group = static_cast<int32_t>(k / (ins / groups));
      std::memcpy(made.data() + 4 * k, &group, 4);
    }
    return ViewOfPart(DType::kI32, {ins}, made);
  }

 private:
  // What is stored of the zero point 2^(bits-1).
  uint8_t Middle(int bits) const { return static_cast<uint8_t>((1 << (bits - 1)) - less_); }

  static std::string Row(const std::vector<uint8_t>& fields, int bits) {
    const int64_t count = static_cast<int64_t>(fields.size());
    std::string row(static_cast<size_t>(4 * PackedWords(count, bits)), '\0');
    PackBits(fields.data(), count, bits, reinterpret_cast<uint8_t*>(row.data()));
    return row;
  }

  // The fields of row g of qzeros [groups, words].
  static std::vector<uint8_t> Fields(const TensorView& zeros, int bits, int64_t g) {
    const int64_t words = zeros.shape[1];
    std::vector<uint8_t> fields(static_cast<size_t>(words * 32 / bits));
    UnpackBits(zeros.bytes.data() + 4 * words * g, static_cast<int64_t>(fields.size()), bits,
               fields.data());
    return fields;
  }

  bool AllInTheMiddle(const TensorView& zeros, int bits) const {
    for (int64_t g = 0; g < zeros.shape[0]; ++g) {
      for (const uint8_t field : Fields(zeros, bits, g)) {
        if (field != Middle(bits)) return false;
      }
    }
    return true;
  }

  // A zero point of 0 less one wraps around: some readers take it for 0, others for 2^bits.
  absl::Status CheckZeros(absl::string_view module, const TensorView& zeros, int bits) const {
    for (int64_t g = 0; g < zeros.shape[0]; ++g) {
      for (const uint8_t field : Fields(zeros, bits, g)) {
        if (field + less_ < 1 << bits) continue;
        return Unreadable(module, absl::StrCat("has the zero point ", field + less_, " in group ",
                                               g, ", of which engines make different things"));
      }
    }
    return absl::OkStatus();
  }

  // The zero points of outputs [first, first + count) as they are, groups in columns.
  std::string ZerosPart(const TensorView& zeros, int bits, int64_t first, int64_t count) const {
    std::string rows;
    for (int64_t g = 0; g < zeros.shape[0]; ++g) {
      std::vector<uint8_t> fields = Fields(zeros, bits, g);
      for (uint8_t& field : fields) field = static_cast<uint8_t>(field + less_);
      rows += Row(fields, bits);
    }
    return Transposed(ViewOfPart(DType::kI32, zeros.shape, rows), first / kFeatureMultiple * bits,
                      count / kFeatureMultiple * bits);
  }

  // F16 whatever the source's type; lwq's scales are exact in both.
  static absl::StatusOr<TensorView> Scales(absl::string_view name, const TensorView& scales,
                                           std::string& made) {
    Matrix values(scales.shape[0], scales.shape[1]);
    LWQ_RETURN_IF_ERROR(WidenToFloat(name, scales, /*refuse_non_finite=*/true, values.view()));
    made.assign(static_cast<size_t>(2 * values.size()), '\0');
    for (int64_t r = 0; r < values.rows(); ++r) {
      for (int64_t g = 0; g < values.cols(); ++g) {
        const float scale = values.Row(r)[g];
        const uint16_t stored = FloatToF16(scale);
        if (F16ToFloat(stored) != scale) {
          return NotPackable(name, absl::StrCat("the scale ", scale, " is not exact in F16"));
        }
        std::memcpy(made.data() + 2 * (g * values.rows() + r), &stored, 2);
      }
    }
    return ViewOfPart(DType::kF16, {values.cols(), values.rows()}, made);
  }

  const int less_;
};

}  // namespace

const LinearCoding& GptqCoding() {
  static const auto& coding = *new PackedCoding(1);
  return coding;
}

const LinearCoding& GptqV2Coding() {
  static const auto& coding = *new PackedCoding(0);
  return coding;
}

}  // namespace lwq
