// A tiny model as a GGUF file: the forecast is its size, it opens with the plan's weights, and what
// is changed in it is found.
#include <cstring>
#include <memory>

#include "base/hash.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/artifact/made_artifact.h"
#include "worker/engine/artifact/artifact_weights.h"
#include "worker/engine/artifact/container.h"
#include "worker/engine/artifact/gguf_file_plan.h"
#include "worker/engine/artifact/verify.h"
#include "worker/engine/format/gguf.h"
#include "worker/engine/gguf/block_fit.h"
#include "worker/engine/gguf/gguf_reader.h"
#include "worker/engine/model/checkpoint_weights.h"
#include "worker/engine/tensor/widen.h"

namespace lwq {
namespace {

using ::lwq::testing::FailsWith;
using ::lwq::testing::MadeArtifact;
using ::lwq::testing::TinyModelOptions;
using ::testing::HasSubstr;

constexpr GgufType kCycle[] = {GgufType::kQ4_K, GgufType::kQ8_0, GgufType::kIQ4_XS, GgufType::kQ5_0,
                               GgufType::kQ2_K};

class GgufContainerTest : public ::testing::TestWithParam<DType> {
 protected:
  void Make(bool tied) {
    TinyModelOptions options;
    options.hidden_size = 256;
    options.intermediate_size = 512;
    options.dtype = GetParam();
    options.tied_embeddings = tied;
    LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory scratch, TempDirectory::Create());
    made_.scratch = std::make_unique<TempDirectory>(std::move(scratch));
    source_ = made_.Directory("model");
    ASSERT_OK(WriteTinyModel(options, source_));
    PlanModel(kCycle);
  }

  // The model in `source_`: types go round, and every sixth unit stays as it is.
  void PlanModel(absl::Span<const GgufType> types) {
    LWQ_ASSERT_OK_AND_ASSIGN(made_.source, Checkpoint::Open(source_));
    LWQ_ASSERT_OK_AND_ASSIGN(spec_, ReadDecoderSpec(source_));
    LWQ_ASSERT_OK_AND_ASSIGN(ModelInventory model, TakeInventory(spec_, *made_.source));
    ASSERT_OK(DescribeForGguf(source_, &model));
    ASSERT_OK(ArtifactFormatDefs::gguf.check(model));
    made_.model = PlannedAs(ArtifactFormatDefs::gguf, std::move(model));
    weights_ = MakeCheckpointWeights(made_.source.get());
    for (size_t u = 0; u < made_.model.units.size(); ++u) {
      made_.plan.push_back(u % 6 == 5 ? DenseFormat()
                                      : static_cast<const WeightFormat*>(
                                            GgufFormat::Find(DefOf(types[u % 6 % types.size()]))));
      ASSERT_NO_FATAL_FAILURE(MakeBlob(made_.model.units[u], made_.plan.back()));
    }
  }

  void MakeBlob(const AllocationUnit& unit, const WeightFormat* format) {
    if (format->dense()) return;
    std::vector<EncodedModule> modules;
    for (const LinearShape& shape : unit.linears) {
      Matrix weight(shape.out_features, shape.in_features);
      ASSERT_OK(weights_->ReadLinear(shape.module, weight.view()));
      modules.push_back({shape.module, Encode(*format, weight)});
    }
    const std::string path = made_.Directory(absl::StrCat("blob-", made_.blobs.size()));
    ASSERT_OK(WriteUnitBlob(path, modules));
    LWQ_ASSERT_OK_AND_ASSIGN(std::unique_ptr<UnitBlob> blob, UnitBlob::Open(path, unit, format));
    made_.blob_set.Add(blob.get());
    made_.blobs.push_back(std::move(blob));
  }

  EncodedLinear Encode(const WeightFormat& format, const Matrix& weight) {
    const GgufTypeDef& type = format.gguf()->type();
    EncodedLinear encoded;
    encoded.push_back({format.Parts(weight.rows(), weight.cols(), GetParam())[0], ""});
    encoded[0].bytes.resize(static_cast<size_t>(encoded[0].spec.size_bytes()));
    for (int64_t r = 0; r < weight.rows(); ++r) {
      QuantizeRow(
          type, GgufFit::kReference, {weight.Row(r), static_cast<size_t>(weight.cols())}, {},
          reinterpret_cast<uint8_t*>(encoded[0].bytes.data()) + r * type.RowBytes(weight.cols()));
    }
    return encoded;
  }

  // Every weight of the model by both sources, to the bit.
  void ExpectSameWeights(const WeightSource& a, const WeightSource& b) {
    const auto compare = [](const std::string& name, const Matrix& x, const Matrix& y) {
      EXPECT_EQ(std::memcmp(x.data(), y.data(), sizeof(float) * static_cast<size_t>(x.size())), 0)
          << name;
    };
    for (const AllocationUnit& unit : made_.model.units) {
      for (const LinearShape& shape : unit.linears) {
        Matrix x(shape.out_features, shape.in_features), y(shape.out_features, shape.in_features);
        if (unit.place == Place::Embedding()) {
          ASSERT_OK(a.ReadDense(shape.module + ".weight", 0, x.view()));
          ASSERT_OK(b.ReadDense(shape.module + ".weight", 0, y.view()));
          Matrix row(1, shape.in_features);
          ASSERT_OK(b.ReadDense(shape.module + ".weight", 47, row.view()));
          const size_t row_bytes = sizeof(float) * static_cast<size_t>(row.cols());
          EXPECT_EQ(std::memcmp(row.data(), x.Row(47), row_bytes), 0);
        } else {
          ASSERT_OK(a.ReadLinear(shape.module, x.view()));
          ASSERT_OK(b.ReadLinear(shape.module, y.view()));
        }
        compare(shape.module, x, y);
      }
    }
    for (const DenseTensor& tensor : made_.model.dense) {
      const int64_t rows = tensor.shape.size() == 2 ? tensor.shape[0] : 1;
      Matrix x(rows, tensor.shape.back()), y(rows, tensor.shape.back());
      EXPECT_TRUE(b.HasDense(tensor.name));
      ASSERT_OK(a.ReadDense(tensor.name, 0, x.view()));
      ASSERT_OK(b.ReadDense(tensor.name, 0, y.view()));
      compare(tensor.name, x, y);
    }
  }

  std::string source_;
  DecoderSpec spec_;
  MadeArtifact made_;
  std::unique_ptr<WeightSource> weights_;
};

INSTANTIATE_TEST_SUITE_P(DTypes, GgufContainerTest,
                         ::testing::Values(DType::kF16, DType::kBF16, DType::kF32),
                         [](const auto& info) { return std::string(NameOf(info.param)); });

TEST_P(GgufContainerTest, TheFileIsTheForecastAndOpensWithThePlansWeights) {
  for (const bool tied : {true, false}) {
    made_ = MadeArtifact();
    ASSERT_NO_FATAL_FAILURE(Make(tied));
    const std::string out = made_.Directory("out");
    LWQ_ASSERT_OK_AND_ASSIGN(const std::vector<WrittenFile> files,
                             ContainerDefs::gguf.write(made_.Parts(), out, nullptr));
    ASSERT_EQ(files.size(), 1u);
    EXPECT_EQ(files[0].name, "model.gguf");
    LWQ_ASSERT_OK_AND_ASSIGN(const int64_t size, FileSize(JoinPath(out, "model.gguf")));
    EXPECT_EQ(size, WeightFileBytes(made_.model, made_.plan, 0));
    EXPECT_EQ(size, files[0].size_bytes);
    LWQ_ASSERT_OK_AND_ASSIGN(const std::string sha256,
                             Sha256HexOfFile(JoinPath(out, "model.gguf")));
    EXPECT_EQ(sha256, files[0].sha256);

    LWQ_ASSERT_OK_AND_ASSIGN(const VerifyReport report,
                             ContainerDefs::gguf.verify(made_.Parts(), out));
    EXPECT_EQ(report.weight_bytes, size);
    EXPECT_EQ(report.num_quantized_linears, static_cast<int64_t>(made_.blobs.size()));
    LWQ_ASSERT_OK_AND_ASSIGN(const ReadableArtifact artifact, OpenArtifact(out, source_));
    EXPECT_EQ(artifact.described_in, source_);
    LWQ_ASSERT_OK_AND_ASSIGN(const auto planned, MakePlanWeights(weights_.get(), made_.model,
                                                                 made_.plan, made_.blob_set));
    ExpectSameWeights(*planned, *artifact.weights);
    EXPECT_THAT(artifact.weights->ReadLinear("model.layers.9.mlp.up_proj", MatrixView()),
                FailsWith("TENSOR_MISSING", HasSubstr("blk.9.ffn_up.weight")));
    // By its own keys the file is the same model.
    LWQ_ASSERT_OK_AND_ASSIGN(const ReadableArtifact alone, OpenArtifact(out, ""));
    EXPECT_EQ(alone.described_in, out);
    ExpectSameWeights(*planned, *alone.weights);
  }
}

// As a source, for an artifact of safetensors that is dense throughout: blocks are read as F32 and
// kept as what the model's other matrices are.
TEST_P(GgufContainerTest, BlocksOfASourceAreKeptAsItsFloatsAre) {
  ASSERT_NO_FATAL_FAILURE(Make(/*tied=*/false));
  ASSERT_OK(ContainerDefs::gguf.write(made_.Parts(), made_.Directory("out"), nullptr));
  const std::string file = made_.Directory("out/model.gguf");
  LWQ_ASSERT_OK_AND_ASSIGN(const auto source, Checkpoint::Open(file));
  LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec, ReadDecoderSpec(file));
  LWQ_ASSERT_OK_AND_ASSIGN(const ModelInventory model, TakeInventory(spec, *source));
  EXPECT_EQ(model.weight_dtype, GetParam());
  const Plan plan(model.units.size(), DenseFormat());
  ArtifactPlan parts = {&model, &plan, source.get(), &made_.blob_set};
  const std::string out = made_.Directory("dense");
  ASSERT_OK(WriteArtifact(parts, out));
  EXPECT_OK(VerifyArtifact(parts, out));

  LWQ_ASSERT_OK_AND_ASSIGN(const auto written, OpenWeights(out));
  const auto kept = MakeKeptWeights(source.get());
  const auto stored = MakeCheckpointWeights(source.get());
  made_.model = model;
  ExpectSameWeights(*kept, *written);
  LWQ_ASSERT_OK_AND_ASSIGN(const AllocationUnit unit,
                           FindUnit(model, "layers.0.self_attn.qkv_proj"));
  const LinearShape& shape = unit.linears[0];
  Matrix was(shape.out_features, shape.in_features), is(shape.out_features, shape.in_features);
  ASSERT_OK(stored->ReadLinear(shape.module, was.view()));
  ASSERT_OK(written->ReadLinear(shape.module, is.view()));
  const bool same =
      std::memcmp(was.data(), is.data(), sizeof(float) * static_cast<size_t>(is.size())) == 0;
  EXPECT_EQ(same, GetParam() == DType::kF32) << "no number of a block was rounded";
  ASSERT_OK(RoundTo(GetParam(), "what was stored", was.view()));
  EXPECT_EQ(std::memcmp(was.data(), is.data(), sizeof(float) * static_cast<size_t>(is.size())), 0);
}

// A model as others wrote it, with a tokenizer of two letters.
void CopyFamily(const char* family, const std::string& directory) {
  ASSERT_OK(MakeDirectories(directory));
  const std::string from = std::string(LWQ_SOURCE_DIR "/tests/golden/families/") + family;
  for (const char* name : {"config.json", "model.safetensors"}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const std::string content, ReadFile(JoinPath(from, name), 1 << 24));
    ASSERT_OK(WriteFileAtomically(JoinPath(directory, name), content));
  }
  ASSERT_OK(WriteFileAtomically(
      JoinPath(directory, "tokenizer.json"),
      R"({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
          "decoder": {"type": "ByteLevel"},
          "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})"));
}

// The experts of a layer that lie in one tensor are one unit.
TEST_P(GgufContainerTest, ExpertsAreStackedInTheirOrder) {
  if (GetParam() != DType::kF16) return;  // the record's own
  LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory scratch, TempDirectory::Create());
  made_.scratch = std::make_unique<TempDirectory>(std::move(scratch));
  source_ = made_.Directory("model");
  ASSERT_NO_FATAL_FAILURE(CopyFamily("mixtral", source_));
  ASSERT_NO_FATAL_FAILURE(PlanModel({GgufType::kQ8_0, GgufType::kQ4_0, GgufType::kIQ4_NL}));
  LWQ_ASSERT_OK_AND_ASSIGN(const AllocationUnit unit,
                           FindUnit(made_.model, "layers.1.block_sparse_moe.experts.w2"));
  EXPECT_EQ(unit.linears.size(), 5u);
  const std::string out = made_.Directory("out");
  ASSERT_OK(ContainerDefs::gguf.write(made_.Parts(), out, nullptr));
  LWQ_ASSERT_OK_AND_ASSIGN(const int64_t size, FileSize(JoinPath(out, "model.gguf")));
  EXPECT_EQ(size, WeightFileBytes(made_.model, made_.plan, 0));
  EXPECT_OK(ContainerDefs::gguf.verify(made_.Parts(), out));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(JoinPath(out, "model.gguf")));
  const int index = file->Find("blk.1.ffn_down_exps.weight");
  ASSERT_GE(index, 0);
  EXPECT_THAT(file->header().tensors[static_cast<size_t>(index)].shape,
              ::testing::ElementsAre(5, 32, 64));
  LWQ_ASSERT_OK_AND_ASSIGN(const ReadableArtifact artifact, OpenArtifact(out, source_));
  LWQ_ASSERT_OK_AND_ASSIGN(
      const auto planned, MakePlanWeights(weights_.get(), made_.model, made_.plan, made_.blob_set));
  ExpectSameWeights(*planned, *artifact.weights);
  LWQ_ASSERT_OK_AND_ASSIGN(const ReadableArtifact alone, OpenArtifact(out, ""));
  ExpectSameWeights(*planned, *alone.weights);
}

// Rewrites the checkpoint with its embedding in F32.
void WidenEmbedding(const std::string& directory) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(directory));
  std::vector<TensorSpec> specs;
  for (const std::string& name : checkpoint->tensor_names()) {
    LWQ_ASSERT_OK_AND_ASSIGN(const TensorView view, checkpoint->Get(name));
    const bool embedding = name == "model.embed_tokens.weight";
    specs.push_back({name, embedding ? DType::kF32 : view.dtype, view.shape});
  }
  const SafetensorsLayout layout = LayOutSafetensors(specs);
  std::string file = layout.header;
  for (const TensorSpec& spec : layout.tensors) {
    LWQ_ASSERT_OK_AND_ASSIGN(const TensorView view, checkpoint->Get(spec.name));
    if (spec.dtype == view.dtype) {
      file.append(reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size());
      continue;
    }
    Matrix wide(spec.shape[0], spec.shape[1]);
    ASSERT_OK(WidenToFloat(spec.name, view, true, wide.view()));
    file.append(reinterpret_cast<const char*>(wide.data()),
                static_cast<size_t>(wide.size()) * sizeof(float));
  }
  ASSERT_OK(WriteFileAtomically(JoinPath(directory, "model.safetensors"), file));
}

TEST_P(GgufContainerTest, AnEmbeddingKeepsTheTypeThatItHas) {
  ASSERT_NO_FATAL_FAILURE(Make(/*tied=*/true));
  ASSERT_NO_FATAL_FAILURE(WidenEmbedding(source_));
  made_.plan.clear();
  ASSERT_NO_FATAL_FAILURE(PlanModel(kCycle));
  made_.plan.assign(made_.plan.size(), DenseFormat());
  const std::string out = made_.Directory("out");
  ASSERT_OK(ContainerDefs::gguf.write(made_.Parts(), out, nullptr));
  EXPECT_OK(ContainerDefs::gguf.verify(made_.Parts(), out));
  LWQ_ASSERT_OK_AND_ASSIGN(const int64_t size, FileSize(JoinPath(out, "model.gguf")));
  EXPECT_EQ(size, WeightFileBytes(made_.model, made_.plan, 0));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(JoinPath(out, "model.gguf")));
  const size_t index = static_cast<size_t>(file->Find("token_embd.weight"));
  EXPECT_EQ(file->header().tensors[index].type, GgufType::kF32);
}

// llama.cpp rotates neighbours: the rows of q and k stand in another order than the source's.
TEST_P(GgufContainerTest, QueriesAreStoredInLlamaCppsOrder) {
  ASSERT_NO_FATAL_FAILURE(Make(/*tied=*/true));
  made_.plan.assign(made_.plan.size(), DenseFormat());
  ASSERT_OK(ContainerDefs::gguf.write(made_.Parts(), made_.Directory("out"), nullptr));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(made_.Directory("out/model.gguf")));
  LWQ_ASSERT_OK_AND_ASSIGN(const TensorView q,
                           made_.source->Get("model.layers.0.self_attn.q_proj.weight"));
  const absl::Span<const uint8_t> stored = file->Bytes(file->Find("blk.0.attn_q.weight"));
  const size_t row = q.bytes.size() / 256;
  // Four heads of 64: row 1 of the file is row 32 of the source.
  EXPECT_EQ(stored.subspan(row, row), q.bytes.subspan(32 * row, row));
  EXPECT_EQ(stored.subspan(2 * row, row), q.bytes.subspan(row, row));
}

TEST_P(GgufContainerTest, AChangedByteIsFoundWhereverItIs) {
  ASSERT_NO_FATAL_FAILURE(Make(/*tied=*/true));
  const std::string out = made_.Directory("out"), path = JoinPath(out, "model.gguf");
  ASSERT_OK(ContainerDefs::gguf.write(made_.Parts(), out, nullptr));
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string good, ReadFile(path, 64 << 20));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(path));
  const size_t data = static_cast<size_t>(file->header().data_offset);
  for (const size_t at : {size_t{40}, data - 40, data + 3, good.size() - 40}) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    ASSERT_OK(WriteFileAtomically(path, bad));
    EXPECT_THAT(ContainerDefs::gguf.verify(made_.Parts(), out).status(),
                FailsWith("VERIFY_MISMATCH", HasSubstr(at < data ? "header" : "tensor")))
        << at;
  }
  ASSERT_OK(WriteFileAtomically(path, good.substr(0, good.size() - 32)));
  EXPECT_THAT(ContainerDefs::gguf.verify(made_.Parts(), out).status(),
              FailsWith("VERIFY_MISMATCH", HasSubstr("planned were")));
}

TEST(DescribeForGgufTest, AModelWithoutATokenizerThatGgufCanSayIsRefusedNotAnError) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory scratch, TempDirectory::Create());
  const std::string directory = JoinPath(scratch.path(), "model");
  ASSERT_OK(testing::WriteTinyModel({}, directory));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(directory));
  LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec, ReadDecoderSpec(directory));
  LWQ_ASSERT_OK_AND_ASSIGN(ModelInventory model, TakeInventory(spec, *checkpoint));
  ASSERT_OK(DescribeForGguf(directory, &model));
  EXPECT_GT(model.gguf_other_bytes, 0);
  EXPECT_EQ(model.gguf_refusal, "");
  ASSERT_OK(RemoveAll(JoinPath(directory, "tokenizer.model")));
  ASSERT_OK(WriteFileAtomically(JoinPath(directory, "tokenizer.json"),
                                R"({"model":{"type":"Unigram","vocab":[["a",0.0]],"unk_id":0}})"));
  ASSERT_OK(DescribeForGguf(directory, &model));
  EXPECT_EQ(model.gguf_other_bytes, 0);
  EXPECT_NE(model.gguf_refusal, "");
}

}  // namespace
}  // namespace lwq
