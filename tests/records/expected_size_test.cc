#include "records/expected_size.h"

#include "gtest/gtest.h"

namespace lwq {
namespace {

constexpr int64_t kSide = 1024;
constexpr int64_t kWeights = 2 * kSide * kSide;    // that can be quantized
constexpr int64_t kDenseBytes = 2 * 1000 * kSide;  // the embedding, in BF16
constexpr int64_t kHeader = 4096;                  // more than the header of so few tensors

v1::ModelManifest Manifest() {
  v1::ModelManifest manifest;
  manifest.set_weight_bytes(2 * kWeights + kDenseBytes);
  v1::Inventory& inventory = *manifest.mutable_inventory();
  inventory.set_num_layers(2);
  inventory.set_weight_dtype("BF16");
  for (int l = 0; l < 2; ++l) {
    v1::InventoryUnit& unit = *inventory.add_units();
    unit.set_name("layers." + std::to_string(l) + ".mlp.down_proj");
    unit.set_layer(l);
    unit.set_part(v1::PART_LAYER);
    v1::InventoryLinear& linear = *unit.add_linears();
    linear.set_module("model.layers." + std::to_string(l) + ".mlp.down_proj");
    linear.set_name("mlp.down_proj");
    linear.set_out_features(kSide);
    linear.set_in_features(kSide);
  }
  v1::InventoryTensor& embedding = *inventory.add_dense();
  embedding.set_name("model.embed_tokens.weight");
  embedding.set_dtype("BF16");
  embedding.add_shape(1000);
  embedding.add_shape(kSide);
  embedding.set_part(v1::PART_EMBEDDING);
  return manifest;
}

int64_t ExpectedOf(double bits_per_weight) {
  v1::QuantizeSpec spec;
  spec.mutable_budget()->set_bits_per_weight(bits_per_weight);
  return ExpectedFileBytes(spec, Manifest());
}

TEST(ExpectedSizeTest, BitsPerWeightAndAllThatNoBudgetReaches) {
  const auto quantized = static_cast<int64_t>(4.25 * kWeights / 8);
  EXPECT_GE(ExpectedOf(4.25), quantized + kDenseBytes);
  EXPECT_LE(ExpectedOf(4.25), quantized + kDenseBytes + kHeader);
}

TEST(ExpectedSizeTest, OfAFileItIsTheBudget) {
  v1::QuantizeSpec spec;
  spec.mutable_budget()->set_file_bytes(kDenseBytes + kWeights / 2);
  EXPECT_EQ(ExpectedFileBytes(spec, Manifest()), spec.budget().file_bytes());
}

TEST(ExpectedSizeTest, ALargeBudgetTakesNoMoreThanTheModelHas) {
  EXPECT_LE(ExpectedOf(64), 2 * kWeights + kDenseBytes + kHeader);
  EXPECT_GE(ExpectedOf(64), 2 * kWeights + kDenseBytes);
}

TEST(ExpectedSizeTest, WhatNobodyCanPlanIsLeftToTheServer) {
  v1::QuantizeSpec spec;
  spec.set_profile("nobody");
  EXPECT_EQ(ExpectedFileBytes(spec, Manifest()), 0);
}

}  // namespace
}  // namespace lwq
