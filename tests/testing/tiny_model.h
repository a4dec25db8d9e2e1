// Writes random Llama checkpoints for tests and benches: the same options give the same bytes on
// every machine. Streams to disk, so that a model larger than memory can be written too.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "worker/engine/tensor/dtype.h"

namespace lwq::testing {

struct TinyModelOptions {
  int num_layers = 2;
  int64_t hidden_size = 128;
  int64_t intermediate_size = 256;
  int num_heads = 4;
  int num_kv_heads = 2;
  // From kSampleVocabSize on, the sample model's tokenizer is copied beside the weights, so that
  // text can be encoded; below it the directory has no tokenizer.
  int64_t vocab_size = 4096;
  int64_t max_positions = 512;
  DType dtype = DType::kF16;  // F16, BF16 or F32, for every tensor
  bool tied_embeddings = true;
  int num_shards = 1;  // more than one: shards and model.safetensors.index.json
  // Every 16th norm channel is larger than the others by 2^outlier_exponent, and the columns of the
  // linears that read it are smaller by as much: the function of the model is one of the same kind,
  // but its activations have strong outlier channels. 0: none.
  int outlier_exponent = 0;
  uint64_t seed = 1;
};

inline constexpr int64_t kSampleVocabSize = 4096;

// Makes `directory` and writes config.json, the weights and, where it fits, the tokenizer.
// `tokenizer_source` is the directory that the tokenizer files are copied from. INVALID_ARGUMENT
// for sizes that do not make a model.
absl::Status WriteTinyModel(const TinyModelOptions& options, const std::string& directory,
                            const std::string& tokenizer_source = LWQ_SAMPLE_MODEL);

}  // namespace lwq::testing
