// Edits as a blob, and an artifact with them: written as forecast, proven, and the model that the
// plan's weights are, to the bit.
#include "worker/engine/artifact/edits_blob.h"

#include <cstring>

#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/artifact/made_artifact.h"
#include "worker/engine/artifact/artifact_weights.h"
#include "worker/engine/artifact/verify.h"
#include "worker/engine/plan/safetensors_layout.h"

namespace lwq::testing {
namespace {

using ::testing::HasSubstr;

LayerEdits SomeEdits() {
  LayerEdits edits;
  edits.tensors["n"] = {1, 2, 3};
  edits.linears["a"] = {.rows = {4, 5}, .columns = {}};
  edits.linears["b.c"] = {.rows = {6}, .columns = {7, 8}};
  return edits;
}

TEST(EditsBlobTest, RoundTrip) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory scratch, TempDirectory::Create());
  const std::string path = JoinPath(scratch.path(), "edits");
  for (const LayerEdits& edits : {SomeEdits(), LayerEdits()}) {
    ASSERT_OK(WriteEditsBlob(path, edits));
    LWQ_ASSERT_OK_AND_ASSIGN(const LayerEdits read, ReadEditsBlob(path));
    EXPECT_EQ(read.tensors, edits.tensors);
    ASSERT_EQ(read.linears.size(), edits.linears.size());
    for (const auto& [module, scales] : edits.linears) {
      EXPECT_EQ(read.linears.at(module).rows, scales.rows);
      EXPECT_EQ(read.linears.at(module).columns, scales.columns);
    }
  }
}

TEST(EditsBlobTest, WhatIsNoEditIsRefused) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory scratch, TempDirectory::Create());
  const std::string path = JoinPath(scratch.path(), "edits");
  const SafetensorsLayout layout = LayOutSafetensors({{"tensor:n", DType::kF16, {2}}});
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, FileWriter::Create(path));
  ASSERT_OK(writer->Append(absl::string_view(layout.header)));
  ASSERT_OK(writer->Append(absl::string_view("abcd")));
  ASSERT_OK(writer->Close());
  EXPECT_THAT(ReadEditsBlob(path), FailsWith("BLOB_CORRUPT", HasSubstr("tensor:n")));
}

// Norms are divided, all columns of their readers multiplied.
LayerEdits EditsOf(const MadeArtifact& made) {
  LayerEdits edits;
  for (const DenseTensor& tensor : made.model.dense) {
    if (tensor.place != Place::Layer(0)) continue;
    edits.tensors[tensor.name] = std::vector<float>(static_cast<size_t>(tensor.shape[0]), 0.5f);
  }
  for (const AllocationUnit& unit : made.model.units) {
    if (unit.place != Place::Layer(0)) continue;
    for (const LinearShape& linear : unit.linears) {
      LinearScales& scales = edits.linears[linear.module];
      for (int64_t c = 0; c < linear.in_features; ++c) {
        scales.columns.push_back(c % 3 == 0 ? 1.5f : 2.0f);
      }
    }
  }
  return edits;
}

TEST(EditedArtifactTest, IsProvenAndHasThePlansWeights) {
  LWQ_ASSERT_OK_AND_ASSIGN(MadeArtifact made, MakeMixedTiny({}));
  const LayerEdits edits = EditsOf(made);
  ASSERT_FALSE(edits.tensors.empty());
  ArtifactPlan plan = made.Parts();
  plan.edits = &edits;
  const std::string out = made.Directory("edited");
  ASSERT_OK(WriteArtifact(plan, out));
  ASSERT_OK(VerifyArtifact(plan, out).status());
  EXPECT_THAT(VerifyArtifact(made.Parts(), out), FailsWith("VERIFY_MISMATCH", HasSubstr("tensor")))
      << "without the edits it is another artifact";

  LWQ_ASSERT_OK_AND_ASSIGN(const auto artifact, OpenWeights(out));
  const auto dense = MakeCheckpointWeights(made.source.get());
  LWQ_ASSERT_OK_AND_ASSIGN(
      const auto planned,
      MakePlanWeights(dense.get(), made.model, made.plan, made.blob_set, &edits));
  int changed = 0;
  for (size_t u = 0; u < made.model.units.size(); ++u) {
    for (const LinearShape& linear : made.model.units[u].linears) {
      Matrix a(linear.out_features, linear.in_features), b(a.rows(), a.cols()),
          c(a.rows(), a.cols());
      ASSERT_OK(artifact->ReadLinear(linear.module, a.view()));
      ASSERT_OK(planned->ReadLinear(linear.module, b.view()));
      ASSERT_OK(dense->ReadLinear(linear.module, c.view()));
      const size_t bytes = sizeof(float) * static_cast<size_t>(a.size());
      EXPECT_EQ(std::memcmp(a.data(), b.data(), bytes), 0) << linear.module;
      const bool edited_dense = made.plan[u]->dense() && edits.linears.count(linear.module) > 0;
      changed += edited_dense && std::memcmp(a.data(), c.data(), bytes) != 0;
    }
  }
  EXPECT_GT(changed, 0) << "no dense linear was scaled: the case shows nothing";
  for (const auto& [name, values] : edits.tensors) {
    Matrix row(1, static_cast<int64_t>(values.size()));
    ASSERT_OK(artifact->ReadDense(name, 0, row.view()));
    EXPECT_EQ(row.data()[0], 0.5f) << name;
  }
}

// What torch made of the same file: tests/golden/fp8/record.py.
TEST(EditedTensorTest, FloatsOf8BitsAreWrittenAsBF16) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto source, Checkpoint::Open(LWQ_SOURCE_DIR "/tests/golden/fp8"));
  LWQ_ASSERT_OK_AND_ASSIGN(const TensorView recorded, source->Get("w_read"));
  const LayerEdits of_others = SomeEdits();
  for (const LayerEdits* edits : {static_cast<const LayerEdits*>(nullptr), &of_others}) {
    std::string made;
    LWQ_ASSERT_OK_AND_ASSIGN(const TensorView read, EditedTensor(*source, edits, "w", made));
    EXPECT_EQ(read.dtype, DType::kBF16);
    EXPECT_EQ(read.shape, recorded.shape);
    EXPECT_TRUE(read.bytes == recorded.bytes);
  }
}

TEST(EditedTensorTest, AnEditOfAnotherShapeIsRefused) {
  LWQ_ASSERT_OK_AND_ASSIGN(MadeArtifact made, MakeMixedTiny({}));
  LayerEdits edits;
  const std::string& norm = made.model.dense.back().name;
  edits.tensors[norm] = {1, 2};
  std::string bytes;
  EXPECT_EQ(EditedTensor(*made.source, &edits, norm, bytes).status().code(),
            absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace lwq::testing
