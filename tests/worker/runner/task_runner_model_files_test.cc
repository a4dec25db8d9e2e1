// Tasks against model directories that are damaged, or that change behind the service's back.
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/tiny_model.h"
#include "tests/worker/runner/local_blobs.h"
#include "worker/engine/device/device.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/plan/safetensors_layout.h"
#include "worker/runner/task_runner.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;

class ModelFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    // Of this case alone: cases may run at once.
    directory_ = absl::StrCat(::testing::TempDir(), "/model_files_test_",
                              ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    options_.tied_embeddings = false;
    options_.dtype = DType::kBF16;
    ASSERT_OK(testing::WriteTinyModel(options_, Model()));
    LWQ_ASSERT_OK_AND_ASSIGN(device_, MakeDevice({.device = "cpu", .num_threads = 1}));
    blobs_ = std::make_unique<testing::LocalBlobs>(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string Model() const { return absl::StrCat(directory_, "/model"); }

  absl::StatusOr<v1::TaskOutput> Run(v1::TaskSpec spec) {
    v1::Lease lease;
    *lease.mutable_spec() = std::move(spec);
    for (const v1::TaskInput& input : inputs_) *lease.add_inputs() = input;
    TaskContext context;
    context.device = device_.get();
    context.blobs = blobs_.get();
    context.lease = &lease;
    context.progress = [&](double, const std::string& current) {
      if (on_progress_) on_progress_(current);
      return absl::OkStatus();
    };
    return RunTask(context);
  }

  absl::StatusOr<v1::ModelManifest> Ingest() {
    v1::TaskSpec spec;
    spec.mutable_ingest()->set_directory(Model());
    LWQ_ASSIGN_OR_RETURN(const v1::TaskOutput output, Run(spec));
    return output.ingest();
  }

  void Write(const std::string& name, const std::string& content) {
    std::ofstream(absl::StrCat(Model(), "/", name)) << content;
  }

  // Overwrites the first element of a BF16 tensor with NaN. What the header says of its place is
  // found by its name: "...,"data_offsets":[begin,end]".
  void Damage(const std::string& tensor) {
    std::fstream file(absl::StrCat(Model(), "/model.safetensors"),
                      std::ios::in | std::ios::out | std::ios::binary);
    uint64_t length = 0;
    file.read(reinterpret_cast<char*>(&length), 8);
    std::string header(length, ' ');
    file.read(header.data(), static_cast<std::streamsize>(length));
    const size_t entry = header.find(absl::StrCat("\"", tensor, "\""));
    ASSERT_NE(entry, std::string::npos);
    const std::string key = "data_offsets\":[";
    const size_t at = header.find(key, entry) + key.size();
    file.seekp(static_cast<std::streamoff>(8 + length + std::stoull(header.substr(at))));
    file.write("\xC0\x7F", 2);
  }

  testing::TinyModelOptions options_;
  std::string directory_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<testing::LocalBlobs> blobs_;
  std::vector<v1::TaskInput> inputs_;
  std::function<void(const std::string&)> on_progress_;
};

// The tiny model with one weight in 8-bit floats.
class Fp8FilesTest : public ModelFilesTest {
 protected:
  static constexpr char kTensor[] = "model.layers.0.mlp.up_proj.weight";
  static constexpr char kScales[] = "model.layers.0.mlp.up_proj.weight_scale_inv";

  // Its codes are 1 but for the last, its scales `scale`; no shape: no scales.
  void MakeFp8(float scale, char last, std::vector<int64_t> scales_shape = {2, 1}) {
    ASSERT_OK(testing::WriteTinyModel(options_, Model()));
    config_ = Read("config.json");
    Write("config.json",
          absl::StrCat(R"({"quantization_config":{"quant_method":"fp8","fmt":"e4m3",)"
                       R"("weight_block_size":[128,128]},)",
                       config_.substr(config_.find('{') + 1)));
    std::map<std::string, std::string> bytes;
    std::vector<TensorSpec> specs;
    {
      LWQ_ASSERT_OK_AND_ASSIGN(const auto dense, Checkpoint::Open(Model()));
      for (const std::string& name : dense->tensor_names()) {
        LWQ_ASSERT_OK_AND_ASSIGN(const TensorView view, dense->Get(name));
        specs.push_back({name, name == kTensor ? DType::kF8E4M3 : view.dtype, view.shape});
        bytes[name].assign(view.bytes.begin(), view.bytes.end());
      }
    }
    std::string& codes = bytes[kTensor];
    codes.assign(codes.size() / 2, '\x38');
    codes.back() = last;
    if (!scales_shape.empty()) {
      for (int64_t i = 0; i < scales_shape[0] * scales_shape[1]; ++i) {
        bytes[kScales].append(reinterpret_cast<const char*>(&scale), sizeof(scale));
      }
      specs.push_back({kScales, DType::kF32, std::move(scales_shape)});
    }
    const SafetensorsLayout layout = LayOutSafetensors(std::move(specs));
    std::string file(layout.header.begin(), layout.header.end());
    for (const TensorSpec& tensor : layout.tensors) file += bytes[tensor.name];
    ASSERT_OK(WriteFileAtomically(absl::StrCat(Model(), "/model.safetensors"), file));
  }

  std::string Read(const std::string& name) {
    std::ifstream in(absl::StrCat(Model(), "/", name));
    return std::string((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  }

  std::string config_;  // that says nothing of 8-bit floats
};

TEST_F(ModelFilesTest, AWeightThatIsNotFiniteIsFoundWhereverItIs) {
  for (const char* tensor : {"model.embed_tokens.weight", "model.layers.1.input_layernorm.weight",
                             "model.norm.weight", "model.layers.0.mlp.up_proj.weight"}) {
    ASSERT_OK(testing::WriteTinyModel(options_, Model()));
    ASSERT_OK(Ingest());
    Damage(tensor);
    EXPECT_THAT(Ingest(), FailsWith("NON_FINITE_WEIGHTS", HasSubstr(tensor)));
  }
}

TEST_F(Fp8FilesTest, ItIsReadAsBF16) {
  ASSERT_NO_FATAL_FAILURE(MakeFp8(1, 0));
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::ModelManifest manifest, Ingest());
  EXPECT_EQ(manifest.inventory().weight_dtype(), "BF16");
  EXPECT_EQ(manifest.layer_digests_size(), options_.num_layers);
}

// Layers of one digest share results.
TEST_F(Fp8FilesTest, OtherScalesAreAnotherLayer) {
  ASSERT_NO_FATAL_FAILURE(MakeFp8(1, 0));
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::ModelManifest one, Ingest());
  ASSERT_NO_FATAL_FAILURE(MakeFp8(2, 0));
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::ModelManifest two, Ingest());
  EXPECT_NE(one.layer_digests(0), two.layer_digests(0));
  EXPECT_EQ(one.layer_digests(1), two.layer_digests(1));
}

TEST_F(Fp8FilesTest, WhatCannotBeReadIsRefusedByName) {
  ASSERT_NO_FATAL_FAILURE(MakeFp8(1, '\x7f'));
  EXPECT_THAT(Ingest(), FailsWith("NON_FINITE_WEIGHTS", HasSubstr(kTensor)));
  ASSERT_NO_FATAL_FAILURE(MakeFp8(1, 0, {2, 2}));
  EXPECT_THAT(Ingest(), FailsWith("PACKED_SHAPE", HasSubstr(kTensor)));
  ASSERT_NO_FATAL_FAILURE(MakeFp8(1, 0, {}));
  EXPECT_THAT(Ingest(), FailsWith("TENSOR_MISSING", HasSubstr(kScales)));
  ASSERT_NO_FATAL_FAILURE(MakeFp8(1, 0));
  Write("config.json", config_);
  EXPECT_THAT(Ingest(), FailsWith("QUANT_METHOD_UNSUPPORTED", HasSubstr("F8_E4M3")));
}

// transformers would use the stored head, lwq the embedding.
TEST_F(ModelFilesTest, AStoredHeadThatIsNotTheOneItIsTiedToIsRefused) {
  const std::string path = absl::StrCat(Model(), "/config.json");
  std::ifstream in(path);
  std::string config((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const std::string untied = "\"tie_word_embeddings\": false";
  const size_t at = config.find(untied);
  ASSERT_NE(at, std::string::npos);
  Write("config.json", config.replace(at, untied.size(), "\"tie_word_embeddings\": true"));
  EXPECT_THAT(Ingest(), FailsWith("CONFIG_MISMATCH", HasSubstr("lm_head.weight")));
}

TEST_F(ModelFilesTest, AFolderNamedLikeATokenizersFileIsNotRead) {
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::ModelManifest before, Ingest());
  std::filesystem::create_directories(absl::StrCat(Model(), "/vocab.json"));
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::ModelManifest after, Ingest());
  EXPECT_EQ(after.digest(), before.digest());
}

TEST_F(ModelFilesTest, AModelWithALinkToAnotherPlaceIsRefused) {
  std::ofstream(absl::StrCat(directory_, "/secret")) << "of the worker";
  std::filesystem::create_symlink("../secret", absl::StrCat(Model(), "/LICENSE"));
  EXPECT_THAT(Ingest(), FailsWith("LINK_OUTSIDE_MODEL", HasSubstr("LICENSE")));
}

// All files of it are links, the weights' too.
TEST_F(ModelFilesTest, ASnapshotOfHuggingFacesCacheIsTheSameModel) {
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::ModelManifest plain, Ingest());
  const std::string hub = absl::StrCat(directory_, "/hub");
  std::filesystem::create_directories(absl::StrCat(hub, "/snapshots"));
  std::filesystem::rename(Model(), absl::StrCat(hub, "/blobs"));
  const std::string snapshot = absl::StrCat(hub, "/snapshots/0123abcd");
  std::filesystem::create_directories(snapshot);
  for (const auto& file : std::filesystem::directory_iterator(absl::StrCat(hub, "/blobs"))) {
    const std::string name = file.path().filename().string();
    std::filesystem::create_symlink(absl::StrCat("../../blobs/", name),
                                    absl::StrCat(snapshot, "/", name));
  }
  v1::TaskSpec spec;
  spec.mutable_ingest()->set_directory(snapshot);
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::TaskOutput output, Run(spec));
  EXPECT_EQ(output.ingest().digest(), plain.digest());
}

// Whatever goes into the artifact is part of what the model is known by.
TEST_F(ModelFilesTest, EveryFileThatIsCopiedIsInTheDigest) {
  LWQ_ASSERT_OK_AND_ASSIGN(v1::ModelManifest before, Ingest());
  for (const char* name : {"LICENSE", "chat_template.json", "vocab.txt", "x.tiktoken",
                           "generation_config.json", "config.json"}) {
    if (std::string(name) == "config.json") {
      std::ofstream(absl::StrCat(Model(), "/", name), std::ios::app) << "\n";
    } else {
      Write(name, "{}");
    }
    LWQ_ASSERT_OK_AND_ASSIGN(const v1::ModelManifest after, Ingest());
    EXPECT_NE(after.digest(), before.digest()) << name;
    before = after;
  }
  Write("README.md", "not copied");
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::ModelManifest same, Ingest());
  EXPECT_EQ(same.digest(), before.digest());
}

TEST_F(ModelFilesTest, AnEvaluationOfAModelThatChangedIsRefused) {
  v1::TaskSpec spec;
  v1::EvaluateTask& task = *spec.mutable_evaluate();
  task.mutable_model()->set_directory(Model());
  LWQ_ASSERT_OK_AND_ASSIGN(*task.mutable_model()->mutable_manifest(), Ingest());
  task.set_subject("source");
  task.set_text_tokens(64);
  task.set_sequence_length(32);
  task.set_dataset_kind(v1::Dataset::TEXT);
  task.mutable_dataset()->set_sha256(LWQ_SOURCE_DIR "/examples/calibration/books.txt");
  ASSERT_OK(Run(spec));
  options_.seed = 2;
  ASSERT_OK(testing::WriteTinyModel(options_, Model()));
  EXPECT_THAT(Run(spec), FailsWith("MODEL_CHANGED", HasSubstr("changed since")));
}

// The process that reads lives on, and the next task is none the worse.
TEST_F(ModelFilesTest, AModelThatIsShortenedInTheMiddleOfATaskFailsTheTask) {
  const std::string weights = absl::StrCat(Model(), "/model.safetensors");
  bool is_cut = false;
  on_progress_ = [&](const std::string& current) {
    if (is_cut || current.rfind("values of", 0) != 0) return;
    is_cut = true;
    std::filesystem::resize_file(weights, 4096);
  };
  EXPECT_THAT(Ingest(), FailsWith("MODEL_CHANGED", HasSubstr("was shortened meanwhile")));
  ASSERT_TRUE(is_cut);
  ASSERT_OK(testing::WriteTinyModel(options_, Model()));
  EXPECT_OK(Ingest());
}

// "Per token" is of the tokens that were seen, not of those asked for.
TEST_F(ModelFilesTest, ErrorsPerTokenAreOfTheTokensThatWereSeen) {
  v1::TaskSpec calibrate;
  v1::CalibrateTask& task = *calibrate.mutable_calibrate();
  task.mutable_model()->set_directory(Model());
  task.mutable_calibration()->mutable_dataset()->set_sha256(LWQ_SOURCE_DIR
                                                            "/examples/calibration/books.txt");
  task.mutable_calibration()->set_dataset_kind(v1::Dataset::TEXT);
  task.mutable_calibration()->set_num_tokens(100);  // one sequence of 64
  task.mutable_calibration()->set_sequence_length(64);
  task.set_end_layer(1);
  task.add_evidence("second-moments");
  v1::TaskInput& input = inputs_.emplace_back();
  input.set_role("calibrate");
  LWQ_ASSERT_OK_AND_ASSIGN(*input.mutable_output(), Run(calibrate));
  EXPECT_EQ(input.output().calibrate().num_tokens(), 64);

  std::vector<double> errors;
  for (int64_t asked : {100, 10'000}) {
    v1::TaskSpec quantize;
    v1::QuantizeTask& linear = *quantize.mutable_quantize();
    *linear.mutable_model() = task.model();
    *linear.mutable_calibration() = task.calibration();
    linear.mutable_calibration()->set_num_tokens(asked);
    linear.mutable_recipe()->set_method("gptq");
    v1::UnitFormats& unit = *linear.add_units();
    unit.set_unit("layers.0.mlp.down_proj");
    unit.add_formats("int3-g128");
    LWQ_ASSERT_OK_AND_ASSIGN(const v1::TaskOutput output, Run(quantize));
    errors.push_back(output.quantize().report().linears(0).calibrated_error());
  }
  EXPECT_GT(errors[0], 0);
  EXPECT_EQ(errors[0], errors[1]);
}

// Orders of layers are candidates of a plan that is judged on text that chose nothing.
TEST_F(ModelFilesTest, WhatIsHeldOutRanksNoLayer) {
  const auto cosine = [&](int64_t judge_tokens) {
    v1::TaskSpec spec;
    v1::CalibrateTask& task = *spec.mutable_calibrate();
    task.mutable_model()->set_directory(Model());
    task.mutable_calibration()->mutable_dataset()->set_sha256(LWQ_SOURCE_DIR
                                                              "/examples/calibration/books.txt");
    task.mutable_calibration()->set_dataset_kind(v1::Dataset::TEXT);
    task.mutable_calibration()->set_num_tokens(128 + judge_tokens);
    task.mutable_calibration()->set_sequence_length(64);
    task.mutable_held_out()->set_judge_tokens(judge_tokens);
    task.set_end_layer(1);
    task.add_evidence("layer-cosine");
    const absl::StatusOr<v1::TaskOutput> output = Run(spec);
    EXPECT_OK(output);
    return output.ok() ? output->calibrate().layers(0).values().at("layer-cosine") : 0;
  };
  EXPECT_EQ(cosine(0), cosine(512));
}

}  // namespace
}  // namespace lwq
