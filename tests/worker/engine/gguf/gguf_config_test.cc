// What matrices of a GGUF file are read as, and kept as where they stay dense; the keys themselves
// are held against the models that they were made from in
// tests/worker/engine/io/model_files_test.cc.
#include "worker/engine/gguf/gguf_config.h"

#include <vector>

#include "gtest/gtest.h"

namespace lwq {
namespace {

TEST(GgufTypesTest, BlocksAreReadAsF32AndKeptIn16BitsWhereNoMatrixIsF32) {
  const struct {
    std::vector<GgufType> types;
    DType read, kept;
  } cases[] = {
      {{GgufType::kF16, GgufType::kF16}, DType::kF16, DType::kF16},
      {{GgufType::kBF16, GgufType::kBF16}, DType::kBF16, DType::kBF16},
      {{GgufType::kF32}, DType::kF32, DType::kF32},
      {{GgufType::kF16, GgufType::kBF16}, DType::kF32, DType::kF32},
      {{GgufType::kQ4_K, GgufType::kQ6_K}, DType::kF32, DType::kBF16},
      {{GgufType::kQ8_0}, DType::kF32, DType::kBF16},
      {{GgufType::kQ4_K, GgufType::kF16}, DType::kF32, DType::kF16},
      {{GgufType::kBF16, GgufType::kQ4_K}, DType::kF32, DType::kBF16},
      {{GgufType::kBF16, GgufType::kQ4_K, GgufType::kF16}, DType::kF32, DType::kF32},
      {{GgufType::kQ4_K, GgufType::kF32}, DType::kF32, DType::kF32},
      {{}, DType::kF32, DType::kF32},
  };
  for (const auto& c : cases) {
    // Norms and routers are F32 in every file, and say nothing of the others.
    GgufHeader header;
    header.tensors = {{"output_norm.weight", GgufType::kF32, {256}},
                      {"blk.0.ffn_gate_inp.weight", GgufType::kF32, {4, 256}}};
    for (const GgufType type : c.types) header.tensors.push_back({"blk.0.w", type, {2, 256}});
    const std::string of = ::testing::PrintToString(c.types.size()) + " types";
    EXPECT_EQ(GgufReadAs(header), c.read) << of;
    EXPECT_EQ(GgufKeptAs(header), c.kept) << of;
  }
}

}  // namespace
}  // namespace lwq
