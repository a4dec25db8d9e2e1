#include "worker/engine/gguf/block_fit.h"

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/file.h"
#include "nlohmann/json.hpp"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/gguf/hex_vectors.h"

namespace lwq {
namespace {

using testing::FloatsFromHex;
using testing::FromHex;

std::vector<const GgufTypeDef*> IntegerTypes() {
  std::vector<const GgufTypeDef*> types;
  for (const GgufTypeDef* type : GgufTypes()) {
    if (type->shape != nullptr) types.push_back(type);
  }
  return types;
}

// Those in which a value may have any level whatever the others have.
std::vector<const GgufTypeDef*> TypesOfSingleCodes() {
  std::vector<const GgufTypeDef*> types = IntegerTypes();
  std::erase_if(types, [](const GgufTypeDef* type) { return type->shape->codebook != nullptr; });
  return types;
}

std::vector<uint8_t> Quantized(const GgufTypeDef& type, GgufFit fit,
                               const std::vector<float>& values,
                               const std::vector<float>& importance) {
  std::vector<uint8_t> bytes(
      static_cast<size_t>(type.RowBytes(static_cast<int64_t>(values.size()))));
  QuantizeRow(type, fit, values, importance, bytes.data());
  return bytes;
}

std::vector<float> Dequantized(const GgufTypeDef& type, const std::vector<uint8_t>& bytes) {
  std::vector<float> values(bytes.size() / static_cast<size_t>(type.block_bytes) *
                            static_cast<size_t>(type.block_size));
  DequantizeRow(type, bytes.data(), static_cast<int64_t>(values.size()), values.data());
  return values;
}

double WeightedError(const std::vector<float>& values, const std::vector<float>& importance,
                     const std::vector<float>& stored) {
  double error = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double difference = double{values[i]} - stored[i];
    error += (importance.empty() ? 1.0 : importance[i]) * difference * difference;
  }
  return error;
}

struct Row {
  std::string name;
  std::vector<float> values;
  std::vector<float> importance;
};

std::vector<float> Normal(size_t count, float deviation, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

std::vector<float> Uneven(size_t count) {
  std::vector<float> importance = Normal(count, 1.2f, 77);
  for (float& value : importance) value = std::exp(value);
  return importance;
}

// Ordinary weights, and those at which scales and minima are at their edges.
std::vector<Row> Rows() {
  constexpr size_t kCols = 512;
  const std::vector<float> normal = Normal(kCols, 0.02f, 5);
  std::vector<Row> rows;
  const auto add = [&](const char* name, auto change) {
    Row row{name, normal, Uneven(kCols)};
    for (size_t i = 0; i < kCols; ++i) change(i, &row.values[i], &row.importance[i]);
    rows.push_back(std::move(row));
  };
  add("normal", [](size_t, float*, float*) {});
  add("zeros", [](size_t, float* value, float*) { *value = 0; });
  add("one constant", [](size_t, float* value, float*) { *value = -0.3f; });
  add("positive", [](size_t, float* value, float*) { *value = std::abs(*value) + 0.01f; });
  add("negative", [](size_t, float* value, float*) { *value = -std::abs(*value) - 0.01f; });
  add("an outlier", [](size_t i, float* value, float*) { *value = i == 300 ? 9 : *value; });
  add("a sub-block of zeros", [](size_t i, float* value, float*) { *value *= i / 16 != 3; });
  add("no importance", [](size_t, float*, float* importance) { *importance = 0; });
  add("half without importance",
      [](size_t i, float*, float* importance) { *importance *= i % 2 == 0 ? 0.0f : 1.0f; });
  add("tiny", [](size_t, float* value, float*) { *value *= 1e-9f; });
  add("huge", [](size_t, float* value, float*) { *value *= 1e9f; });
  rows.push_back({"equal importances", normal, {}});
  return rows;
}

// tests/golden/gguf/record.py.
TEST(BlockFitTest, ReferenceBytesEqualTheRecordedOnes) {
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string text,
                           ReadFile(LWQ_SOURCE_DIR "/tests/golden/gguf/quantized.json", 1 << 20));
  const nlohmann::json cases = nlohmann::json::parse(text);
  EXPECT_EQ(cases.size(), 5u);
  for (const nlohmann::json& one : cases) {
    const GgufTypeDef* type = FindGgufType(one["type"].get<std::string>());
    ASSERT_NE(type, nullptr);
    EXPECT_EQ(Quantized(*type, GgufFit::kReference, FloatsFromHex(one["values"]), {}),
              FromHex(one["bytes"]))
        << type->name;
  }
}

TEST(BlockFitTest, SearchIsNeverWorseThanReference) {
  for (const Row& row : Rows()) {
    for (const GgufTypeDef* type : IntegerTypes()) {
      const std::vector<float> searched =
          Dequantized(*type, Quantized(*type, GgufFit::kSearch, row.values, row.importance));
      const std::vector<float> reference =
          Dequantized(*type, Quantized(*type, GgufFit::kReference, row.values, row.importance));
      const double found = WeightedError(row.values, row.importance, searched);
      ASSERT_TRUE(std::isfinite(found)) << row.name << " " << type->name;
      EXPECT_LE(found, WeightedError(row.values, row.importance, reference))
          << row.name << " " << type->name;
    }
  }
}

// What the search is for. The bounds are what it reaches on these weights, with 0.2 % to spare; a
// search that lost one of its steps would miss some.
TEST(BlockFitTest, SearchTakesOffMuchOfTheError) {
  const Row row = Rows()[0];
  const struct {
    GgufType type;
    double bound;
  } cases[] = {{GgufType::kQ2_K, 0.4643}, {GgufType::kQ3_K, 0.7421},   {GgufType::kQ4_0, 0.7088},
               {GgufType::kQ4_1, 0.6393}, {GgufType::kQ4_K, 0.6406},   {GgufType::kQ5_0, 0.6782},
               {GgufType::kQ5_1, 0.5927}, {GgufType::kQ5_K, 0.6027},   {GgufType::kQ6_K, 0.7191},
               {GgufType::kQ8_0, 0.6500}, {GgufType::kIQ4_NL, 0.6522}, {GgufType::kIQ4_XS, 0.6525}};
  for (const auto& [id, bound] : cases) {
    const GgufTypeDef& type = DefOf(id);
    const auto error = [&](GgufFit fit) {
      return WeightedError(row.values, row.importance,
                           Dequantized(type, Quantized(type, fit, row.values, row.importance)));
    };
    const double ratio = error(GgufFit::kSearch) / error(GgufFit::kReference);
    EXPECT_LT(ratio, bound) << type.name;
  }
}

// The least error of a block under any F16 scale of `type`, which has nothing else.
double LeastError(const GgufTypeDef& type, absl::Span<const float> values,
                  absl::Span<const float> importance) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  const float around = largest / -type.shape->levels.front();
  double best = std::numeric_limits<double>::infinity();
  for (int bits = FloatToF16(around / 2); bits < FloatToF16(around * 2); ++bits) {
    for (const int sign : {0, 0x8000}) {
      GgufBlock block;
      block.scale = static_cast<uint16_t>(bits | sign);
      block.sub_scales[0] = 1;
      const BlockGrid grid(type, block);
      double error = 0;
      for (int i = 0; i < type.block_size; ++i) {
        const size_t at = static_cast<size_t>(i);
        const double difference = double{values[at]} - grid.Round(i, values[at]).value;
        error += importance[at] * difference * difference;
      }
      best = std::min(best, error);
    }
  }
  return best;
}

TEST(BlockFitTest, SearchIsCloseToTheBestScaleThereIs) {
  constexpr size_t kBlocks = 40;
  const std::vector<float> values = Normal(32 * kBlocks, 0.02f, 21);
  const std::vector<float> importance = Uneven(32 * kBlocks);
  for (GgufType id : {GgufType::kQ4_0, GgufType::kQ5_0, GgufType::kIQ4_NL}) {
    const GgufTypeDef& type = DefOf(id);
    double least = 0;
    for (size_t b = 0; b < kBlocks; ++b) {
      least += LeastError(type, absl::MakeConstSpan(values).subspan(32 * b, 32),
                          absl::MakeConstSpan(importance).subspan(32 * b, 32));
    }
    const double found =
        WeightedError(values, importance,
                      Dequantized(type, Quantized(type, GgufFit::kSearch, values, importance)));
    EXPECT_GE(found, least) << type.name;
    EXPECT_LE(found, 1.02 * least) << type.name;
  }
}

// Only ratios of importances count, and a column without importance does not pull at the scale.
TEST(BlockFitTest, ImportancesAreRelativeAndZeroMeansFree) {
  const Row row = Rows()[0];
  std::vector<float> larger = row.importance;
  for (float& value : larger) value *= 1024;
  for (const GgufTypeDef* type : IntegerTypes()) {
    EXPECT_EQ(Quantized(*type, GgufFit::kSearch, row.values, larger),
              Quantized(*type, GgufFit::kSearch, row.values, row.importance))
        << type->name;
  }
  Row free = Rows()[0];
  free.importance[40] = 0;
  free.values[40] = 0.5f;  // 25 deviations
  for (const GgufTypeDef* type : IntegerTypes()) {
    std::vector<float> stored =
        Dequantized(*type, Quantized(*type, GgufFit::kSearch, free.values, free.importance));
    stored[40] = free.values[40] = 0;
    const double with = WeightedError(free.values, free.importance, stored);
    Row without = free;
    const double alone = WeightedError(
        without.values, without.importance,
        Dequantized(*type, Quantized(*type, GgufFit::kSearch, without.values, without.importance)));
    EXPECT_LT(with, 1.05 * alone) << type->name;
    free.values[40] = 0.5f;
  }
}

// One grid, two ways to it: rounding value by value gives the codes of the fit and the file's
// values.
TEST(BlockFitTest, GridRoundsToTheCodesAndValuesOfTheBlock) {
  for (const Row& row : Rows()) {
    for (const GgufTypeDef* type : TypesOfSingleCodes()) {
      const size_t size = static_cast<size_t>(type->block_size);
      const BlockFitter fitter(*type, GgufFit::kSearch);
      const absl::Span<const float> importance(row.importance.data(),
                                               row.importance.empty() ? 0 : size);
      GgufBlock block;
      fitter.Fit(absl::MakeConstSpan(row.values).subspan(0, size), importance, &block);
      const BlockGrid grid(*type, block);
      GgufBlock rounded = block;
      std::vector<float> values(size);
      for (int i = 0; i < type->block_size; ++i) {
        const BlockGrid::Rounded one = grid.Round(i, row.values[static_cast<size_t>(i)]);
        rounded.codes[i] = one.code;
        values[static_cast<size_t>(i)] = one.value;
      }
      std::vector<uint8_t> bytes(static_cast<size_t>(type->block_bytes));
      type->shape->pack(rounded, bytes.data());
      EXPECT_EQ(Dequantized(*type, bytes), values) << row.name << " " << type->name;
      // Rounding again can only help: the fit may have kept the reference's codes.
      std::vector<uint8_t> fitted(bytes.size());
      type->shape->pack(block, fitted.data());
      const std::vector<float> head(row.values.begin(),
                                    row.values.begin() + static_cast<int64_t>(size));
      // An F32 rounding of the quotient decides ties, so equal up to that.
      EXPECT_LE(WeightedError(head, {}, values),
                WeightedError(head, {}, Dequantized(*type, fitted)) * (1 + 1e-5))
          << row.name << " " << type->name;
    }
  }
}

TEST(BlockFitTest, AnyFloatRoundsToSomeCode) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const GgufTypeDef* type : TypesOfSingleCodes()) {
    for (const uint16_t scale : {0x0000, 0x0001, 0x3400, 0xb400, 0x7c00, 0x7e00}) {
      GgufBlock block;
      block.scale = scale;
      for (int8_t& sub_scale : block.sub_scales) sub_scale = 1;
      const BlockGrid grid(*type, block);
      for (const float value : {0.0f, 1e-40f, -3e38f, 3e38f, infinity, -infinity, std::nanf("")}) {
        EXPECT_LT(grid.Round(0, value).code, type->shape->levels.size()) << type->name;
      }
    }
  }
}

}  // namespace
}  // namespace lwq
