// What the comparisons with other programs (tests/peers) need to see of the engine.
//   engine_probe tokens MODEL_DIR TEXTS OUT [--special]
//       TEXTS: UTF-8 texts, each ended by a NUL. OUT: int32 ids, each text ended by a -1.
//   engine_probe logits MODEL_DIR IDS OUT [--window N] [--compute f32|bf16] [--threads N]
//       [--device cpu|reference]
//       IDS: int32; OUT: float32 [ids, vocabulary]. The ids are cut into windows of N that do not
//       see each other. MODEL_DIR is a model or one of lwq's artifacts.
//   engine_probe artifact MODEL_DIR SCRATCH OUT [--max-shard BYTES] [--asymmetric]
//       Writes an artifact with every width and group size in it, without any service and
//       with the simplest codes: for what other programs make of the format. SCRATCH: made,
//       deleted.
// Numbers are little-endian, as the machine has them.
#include <algorithm>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "tests/testing/whole_logits.h"
#include "tests/worker/engine/artifact/made_artifact.h"
#include "worker/engine/artifact/artifact_weights.h"
#include "worker/engine/device/device.h"
#include "worker/engine/model/decoder.h"
#include "worker/engine/model/decoder_spec.h"
#include "worker/engine/model/weight_source.h"
#include "worker/engine/tokenizer/tokenizer.h"

namespace lwq {
namespace {

constexpr int64_t kMaxInput = int64_t{1} << 30;
constexpr int64_t kRowsAtOnce = 256;

struct Options {
  std::string model, input, output, compute = "f32", device = "cpu";
  bool special = false, asymmetric = false;
  int64_t window = 500;
  int threads = 0;
  int64_t max_shard = 0;
};

template <typename T>
absl::Span<const uint8_t> AsBytes(const T* values, size_t count) {
  return {reinterpret_cast<const uint8_t*>(values), count * sizeof(T)};
}

absl::Status WriteTokens(const Options& o) {
  LWQ_ASSIGN_OR_RETURN(auto tokenizer, LoadTokenizer(o.model));
  LWQ_ASSIGN_OR_RETURN(const std::string texts, ReadFile(o.input, kMaxInput));
  LWQ_ASSIGN_OR_RETURN(auto writer, FileWriter::Create(o.output));
  for (size_t begin = 0; begin < texts.size();) {
    const size_t end = texts.find('\0', begin);
    if (end == std::string::npos) return absl::InvalidArgumentError("the last text has no NUL");
    LWQ_ASSIGN_OR_RETURN(
        auto ids,
        tokenizer->Encode(absl::string_view(texts).substr(begin, end - begin), o.special));
    ids.push_back(-1);
    LWQ_RETURN_IF_ERROR(writer->Append(AsBytes(ids.data(), ids.size())));
    begin = end + 1;
  }
  return writer->Finish();
}

absl::StatusOr<TokenBatch> ReadBatch(const Options& o) {
  LWQ_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(o.input, kMaxInput));
  std::vector<int32_t> ids(bytes.size() / sizeof(int32_t));
  std::memcpy(ids.data(), bytes.data(), ids.size() * sizeof(int32_t));
  TokenBatch batch;
  const int64_t count = static_cast<int64_t>(ids.size());
  for (int64_t begin = 0; begin < count; begin += o.window) {
    batch.Add(absl::MakeConstSpan(ids).subspan(begin, std::min(o.window, count - begin)));
  }
  return batch;
}

absl::Status WriteLogits(const Options& o) {
  LWQ_ASSIGN_OR_RETURN(const TokenBatch batch, ReadBatch(o));
  LWQ_ASSIGN_OR_RETURN(DecoderSpec spec, ReadDecoderSpec(o.model));
  LWQ_ASSIGN_OR_RETURN(const auto weights, OpenWeights(o.model));
  DeviceOptions device_options;
  device_options.device = o.device;
  device_options.num_threads = o.threads;
  LWQ_ASSIGN_OR_RETURN(auto device, MakeDevice(device_options));
  const ComputeType compute = o.compute == "bf16" ? ComputeType::kBF16 : ComputeType::kF32;
  const int64_t width = spec.hidden_size;
  LWQ_ASSIGN_OR_RETURN(auto decoder,
                       Decoder::Create(std::move(spec), weights.get(), device.get(), compute));
  Matrix hidden(batch.num_tokens(), width);
  LWQ_RETURN_IF_ERROR(RunAllLayers(*decoder, batch, hidden.view()));
  LWQ_ASSIGN_OR_RETURN(auto writer, FileWriter::Create(o.output));
  for (int64_t begin = 0; begin < batch.num_tokens(); begin += kRowsAtOnce) {
    const int64_t rows = std::min(kRowsAtOnce, batch.num_tokens() - begin);
    LWQ_ASSIGN_OR_RETURN(const Matrix logits,
                         testing::WholeLogits(*decoder, hidden.view().Rows(begin, rows)));
    LWQ_RETURN_IF_ERROR(writer->Append(AsBytes(logits.data(), static_cast<size_t>(logits.size()))));
  }
  return writer->Finish();
}

absl::Status WriteMixedArtifact(const Options& o) {
  LWQ_RETURN_IF_ERROR(MakeDirectories(o.input));
  LWQ_ASSIGN_OR_RETURN(TempDirectory scratch, TempDirectory::Create(o.input));
  testing::MadeArtifact made;
  made.scratch = std::make_unique<TempDirectory>(std::move(scratch));
  LWQ_ASSIGN_OR_RETURN(made.source, Checkpoint::Open(o.model));
  LWQ_ASSIGN_OR_RETURN(const DecoderSpec spec, ReadDecoderSpec(o.model));
  LWQ_ASSIGN_OR_RETURN(made.model, TakeInventory(spec, *made.source));
  made.plan = testing::MixedPlan(made.model);
  for (const WeightFormat*& format : made.plan) {
    const GridFormat* grid = format->grid();
    if (grid == nullptr || o.asymmetric) continue;
    format = GridFormat::Find(grid->bits(), grid->group_size(), /*symmetric=*/true);
  }
  LWQ_RETURN_IF_ERROR(testing::MakeBlobs(&made));
  return WriteArtifact(made.Parts(o.max_shard), o.output).status();
}

absl::Status RunCommand(absl::string_view command, const Options& o) {
  if (command == "tokens") return WriteTokens(o);
  if (command == "logits") return WriteLogits(o);
  return WriteMixedArtifact(o);
}

}  // namespace
}  // namespace lwq

int main(int argc, char** argv) {
  lwq::Options options;
  CLI::App app{"Shows what the engine computes and writes"};
  app.require_subcommand(1);
  CLI::App* tokens = app.add_subcommand("tokens");
  CLI::App* logits = app.add_subcommand("logits");
  CLI::App* artifact = app.add_subcommand("artifact");
  for (CLI::App* command : {tokens, logits, artifact}) {
    command->add_option("model", options.model)->required();
    command->add_option("input", options.input)->required();
    command->add_option("output", options.output)->required();
  }
  tokens->add_flag("--special", options.special);
  logits->add_option("--window", options.window)->check(CLI::PositiveNumber);
  logits->add_option("--compute", options.compute)->check(CLI::IsMember({"f32", "bf16"}));
  logits->add_option("--device", options.device)->check(CLI::IsMember({"cpu", "reference"}));
  logits->add_option("--threads", options.threads);
  artifact->add_option("--max-shard", options.max_shard);
  artifact->add_flag("--asymmetric", options.asymmetric);
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = lwq::RunCommand(app.get_subcommands().front()->get_name(), options);
  if (status.ok()) return 0;
  std::cerr << "engine_probe: " << status << "\n";
  return 1;
}
