// A GGUF file as the source of a model: it is the model that it was made from, down to the bits of
// the logits. Here of the recorded families that GGUF can say; of all, and files of others, in
// tests/peers/gguf_source_test.py.
#include "worker/engine/io/model_files.h"

#include <algorithm>
#include <cstring>

#include "base/file.h"
#include "base/model_path.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/whole_logits.h"
#include "tests/worker/engine/artifact/made_artifact.h"
#include "worker/engine/artifact/companion_files.h"
#include "worker/engine/artifact/container.h"
#include "worker/engine/artifact/gguf_file_plan.h"
#include "worker/engine/gguf/gguf_writer.h"
#include "worker/engine/io/stored_rows.h"
#include "worker/engine/model/decoder.h"
#include "worker/engine/tokenizer/tokenizer.h"

namespace lwq {
namespace {

using ::testing::ElementsAre;
using testing::FailsWith;
using ::testing::HasSubstr;
using testing::MadeArtifact;

constexpr char kTokenizer[] =
    R"({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})";

// Of eight tokens: as far as the records' windows reach, which GGUF files do not have.
absl::StatusOr<Matrix> Logits(const DecoderSpec& spec, const WeightSource& weights) {
  LWQ_ASSIGN_OR_RETURN(auto device, MakeDevice({.device = "cpu", .num_threads = 1}));
  LWQ_ASSIGN_OR_RETURN(auto decoder,
                       Decoder::Create(spec, &weights, device.get(), ComputeType::kF32));
  TokenBatch batch;
  std::vector<int32_t> tokens;
  for (int i = 0; i < 8; ++i) tokens.push_back(i * 37 % 64);
  batch.Add(tokens);
  Matrix hidden(batch.num_tokens(), spec.hidden_size);
  LWQ_RETURN_IF_ERROR(RunAllLayers(*decoder, batch, hidden.view()));
  return testing::WholeLogits(*decoder, hidden.view());
}

class GgufSourceTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory scratch, TempDirectory::Create());
    made_.scratch = std::make_unique<TempDirectory>(std::move(scratch));
    source_ = made_.Directory("source");
    ASSERT_OK(MakeDirectories(source_));
  }

  // Writes the record of a family as a GGUF file, its own floats.
  void Write(const std::string& family) {
    const std::string records = LWQ_SOURCE_DIR "/tests/golden/families";
    // Those of Llama's longer contexts share its weights.
    const std::string weights = family.substr(0, family.find('-'));
    for (const auto& [from, name] :
         {std::pair(family, "config.json"), std::pair(weights, "model.safetensors")}) {
      LWQ_ASSERT_OK_AND_ASSIGN(const std::string content,
                               ReadFile(JoinPath(JoinPath(records, from), name), 1 << 24));
      ASSERT_OK(WriteFileAtomically(JoinPath(source_, name), content));
    }
    ASSERT_OK(WriteFileAtomically(JoinPath(source_, "tokenizer.json"), kTokenizer));
    LWQ_ASSERT_OK_AND_ASSIGN(made_.source, Checkpoint::Open(source_));
    LWQ_ASSERT_OK_AND_ASSIGN(spec_, ReadDecoderSpec(source_));
    LWQ_ASSERT_OK_AND_ASSIGN(ModelInventory model, TakeInventory(spec_, *made_.source));
    ASSERT_OK(DescribeForGguf(source_, &model));
    ASSERT_OK(ArtifactFormatDefs::gguf.check(model));
    made_.model = PlannedAs(ArtifactFormatDefs::gguf, std::move(model));
    made_.plan.assign(made_.model.units.size(), DenseFormat());
    ASSERT_OK(ContainerDefs::gguf.write(made_.Parts(), made_.Directory("out"), nullptr));
    file_ = made_.Directory("out/model.gguf");
  }

  MadeArtifact made_;
  DecoderSpec spec_;
  std::string source_, file_;
};

TEST_P(GgufSourceTest, IsTheModelItWasMadeFrom) {
  ASSERT_NO_FATAL_FAILURE(Write(GetParam()));
  LWQ_ASSERT_OK_AND_ASSIGN(const DecoderSpec spec, ReadDecoderSpec(file_));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(file_));
  LWQ_ASSERT_OK_AND_ASSIGN(const ModelInventory model, TakeInventory(spec, *checkpoint));
  LWQ_ASSERT_OK_AND_ASSIGN(const ModelInventory was, TakeInventory(spec_, *made_.source));
  EXPECT_EQ(model.units.size(), was.units.size());
  const auto original = MakeCheckpointWeights(made_.source.get());
  const auto weights = MakeCheckpointWeights(checkpoint.get());
  LWQ_ASSERT_OK_AND_ASSIGN(const Matrix expected, Logits(spec_, *original));
  LWQ_ASSERT_OK_AND_ASSIGN(const Matrix found, Logits(spec, *weights));
  ASSERT_EQ(found.size(), expected.size());
  EXPECT_EQ(
      std::memcmp(found.data(), expected.data(), sizeof(float) * static_cast<size_t>(found.size())),
      0);
}

INSTANTIATE_TEST_SUITE_P(Families, GgufSourceTest,
                         ::testing::Values("llama", "llama-linear", "llama-llama3", "mistral",
                                           "mixtral", "qwen", "qwen2", "phi3"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

class GgufSourceFilesTest : public GgufSourceTest {};

TEST_F(GgufSourceFilesTest, AFileOrTheOnlyOneOfADirectoryIsAModel) {
  ASSERT_NO_FATAL_FAILURE(Write("llama"));
  const std::string out = made_.Directory("out");
  for (const std::string& model : {file_, out}) {
    EXPECT_EQ(GgufFileOf(model), file_);
    EXPECT_THAT(*ListCompanionFiles(model), ElementsAre("tokenizer.json", "tokenizer_config.json"));
    LWQ_ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(model));
    EXPECT_THAT(checkpoint->file_names(), ElementsAre("model.gguf"));
    EXPECT_EQ(FileOfModel(model, "model.gguf"), file_);
    LWQ_ASSERT_OK_AND_ASSIGN(const auto tokenizer, LoadTokenizer(model));
    LWQ_ASSERT_OK_AND_ASSIGN(const std::vector<int32_t> ids, tokenizer->Encode("abba", false));
    EXPECT_THAT(ids, ElementsAre(2, 1, 0));
  }
  ASSERT_OK(WriteFileAtomically(JoinPath(out, "second.gguf"), "GGUF"));
  EXPECT_EQ(GgufFileOf(out), "");
  EXPECT_THAT(Checkpoint::Open(out).status(), FailsWith("WEIGHTS_MISSING", HasSubstr("its path")));
  EXPECT_OK(Checkpoint::Open(file_));
  EXPECT_THAT(Checkpoint::Open(JoinPath(out, "second.gguf")).status(),
              FailsWith("GGUF_TRUNCATED", HasSubstr("second.gguf")));
}

// Blocks are numbers of F32; what is stored in one type of floats is read as that.
TEST_F(GgufSourceFilesTest, ATensorIsReadInTheTypeThatHoldsIt) {
  ASSERT_NO_FATAL_FAILURE(Write("llama"));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(file_));
  LWQ_ASSERT_OK_AND_ASSIGN(const TensorView up,
                           checkpoint->Get("model.layers.0.mlp.up_proj.weight"));
  LWQ_ASSERT_OK_AND_ASSIGN(const TensorView original,
                           made_.source->Get("model.layers.0.mlp.up_proj.weight"));
  EXPECT_EQ(up.dtype, original.dtype);
  EXPECT_EQ(up.coding, nullptr);
  LWQ_ASSERT_OK_AND_ASSIGN(const TensorView q,
                           checkpoint->Get("model.layers.0.self_attn.q_proj.weight"));
  EXPECT_NE(q.coding, nullptr) << "its rows lie in another order";
  Matrix rows(1, q.shape[1]);
  EXPECT_THAT(
      ReadCodedRows(*checkpoint, "model.layers.0.self_attn.q_proj.weight", q.shape[0], rows.view()),
      FailsWith("CONFIG_MISMATCH", HasSubstr("q_proj")));
}

// Rewrites the file's keys, and its tensors' names, as they come.
class HostileGgufTest : public GgufSourceTest {
 protected:
  void Begin(const std::string& family) {
    ASSERT_NO_FATAL_FAILURE(Write(family));
    LWQ_ASSERT_OK_AND_ASSIGN(file_text_, ReadFile(file_, 1 << 24));
    LWQ_ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(file_));
    metadata_ = file->header().metadata;
    tensors_ = file->header().tensors;
    data_ = file_text_.substr(static_cast<size_t>(file->header().data_offset));
  }
  // What opening the rewritten file as a model says.
  absl::Status Open() {
    LWQ_ASSIGN_OR_RETURN(const GgufLayout layout, LayOutGguf(metadata_, tensors_));
    LWQ_RETURN_IF_ERROR(WriteFileAtomically(file_, layout.header + data_));
    LWQ_ASSIGN_OR_RETURN(const DecoderSpec spec, ReadDecoderSpec(file_));
    LWQ_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(file_));
    return TakeInventory(spec, *checkpoint).status();
  }
  GgufMetadata metadata_;
  std::vector<GgufTensorSpec> tensors_;
  std::string file_text_, data_;
};

TEST_F(HostileGgufTest, KeysThatAreMissingOrWrongAreRefused) {
  ASSERT_NO_FATAL_FAILURE(Begin("llama"));
  ASSERT_OK(Open());
  const GgufMetadata good = metadata_;
  const auto refused = [&](const char* key, GgufValue value, const char* reason) {
    metadata_ = good;
    metadata_.Set(key, std::move(value));
    EXPECT_THAT(Open(), FailsWith(reason, HasSubstr(key))) << key;
  };
  refused("llama.block_count", uint32_t{0}, "GGUF_METADATA");
  refused("llama.block_count", std::string("two"), "GGUF_METADATA");
  refused("llama.attention.head_count", uint32_t{0}, "GGUF_METADATA");
  refused("llama.attention.head_count", std::vector<int32_t>{4, 2}, "GGUF_METADATA");
  refused("llama.attention.head_count_kv", int32_t{-1}, "GGUF_METADATA");
  refused("llama.attention.layer_norm_rms_epsilon", std::nanf(""), "GGUF_METADATA");
  refused("llama.rope.freq_base", 0.0f, "GGUF_METADATA");
  refused("llama.attention.key_length", uint64_t{1} << 63, "GGUF_METADATA");
  refused("llama.some_new_scale", 2.0f, "GGUF_UNSUPPORTED");
  metadata_ = good;
  metadata_.Set("general.architecture", std::string("mamba"));
  EXPECT_THAT(Open(), FailsWith("ARCH_UNSUPPORTED", HasSubstr("mamba")));
  metadata_ = good;
  metadata_.Set("split.count", uint16_t{3});
  EXPECT_THAT(Open(), FailsWith("GGUF_UNSUPPORTED", HasSubstr("one of 3 parts")));
  metadata_ = good;
  metadata_.Set("llama.expert_count", uint32_t{0});  // as dense files of some writers have it
  EXPECT_OK(Open());
  metadata_ = good;
  metadata_.Set("llama.rope.scaling.original_context_length", uint32_t{64});
  EXPECT_OK(Open()) << "llama.cpp writes it without a scaling, too";
  // Heads that do not divide the rows of q.
  metadata_ = good;
  metadata_.Set("llama.attention.head_count", uint32_t{3});
  EXPECT_FALSE(Open().ok());
}

TEST_F(HostileGgufTest, TensorsThatAreNotTheModelsAreRefused) {
  ASSERT_NO_FATAL_FAILURE(Begin("llama"));
  const std::vector<GgufTensorSpec> good = tensors_;
  for (size_t i = 0; i < good.size(); ++i) {
    if (good[i].name == "token_embd.weight") continue;  // already config.json misses it
    tensors_ = good;
    tensors_[i].name = "blk.0.ssm_in.weight";
    EXPECT_THAT(Open(), FailsWith("TENSOR_UNKNOWN", HasSubstr("ssm_in"))) << good[i].name;
    tensors_ = good;
    tensors_[i].shape.push_back(1);  // of as many bytes
    EXPECT_FALSE(Open().ok()) << good[i].name;
  }
}

// Each expert becomes a tensor: no shape may make up their number.
TEST_F(HostileGgufTest, ExpertsAreAsManyAsTheKeySays) {
  ASSERT_NO_FATAL_FAILURE(Begin("mixtral"));
  ASSERT_OK(Open());
  const auto stacked = std::find_if(tensors_.begin(), tensors_.end(), [](const auto& tensor) {
    return tensor.name == "blk.0.ffn_up_exps.weight";
  });
  ASSERT_NE(stacked, tensors_.end());
  // Of as many bytes: rows of experts that would each have fewer.
  stacked->shape = {stacked->shape[0] * stacked->shape[1], 1, stacked->shape[2]};
  EXPECT_THAT(Open(), FailsWith("GGUF_TENSOR", HasSubstr("expected 5 experts")));
}

}  // namespace
}  // namespace lwq
