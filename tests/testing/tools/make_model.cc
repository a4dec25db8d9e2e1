// make_model OUT [--layers N --hidden N --intermediate N --heads N --kv-heads N --vocab N
//                 --dtype f16|bf16|f32 --untied --shards N --outliers EXPONENT --seed N]
// Writes a random Llama checkpoint (tests/testing/tiny_model.h). The 2 GB model of the memory and
// time measurements: --layers 24 --hidden 2048 --intermediate 5632 --heads 16 --kv-heads 16
// --dtype bf16.
#include <iostream>
#include <string>

#include "CLI/CLI.hpp"
#include "tests/testing/tiny_model.h"

int main(int argc, char** argv) {
  lwq::testing::TinyModelOptions options;
  std::string out, dtype = "bf16";
  bool untied = false;
  CLI::App app{"Writes a random Llama checkpoint"};
  app.add_option("out", out, "directory to make")->required();
  app.add_option("--layers", options.num_layers);
  app.add_option("--hidden", options.hidden_size);
  app.add_option("--intermediate", options.intermediate_size);
  app.add_option("--heads", options.num_heads);
  app.add_option("--kv-heads", options.num_kv_heads);
  app.add_option("--vocab", options.vocab_size);
  app.add_option("--positions", options.max_positions);
  app.add_option("--dtype", dtype)->check(CLI::IsMember({"f16", "bf16", "f32"}));
  app.add_flag("--untied", untied);
  app.add_option("--shards", options.num_shards);
  app.add_option("--outliers", options.outlier_exponent);
  app.add_option("--seed", options.seed);
  CLI11_PARSE(app, argc, argv);
  options.tied_embeddings = !untied;
  options.dtype = dtype == "f16"    ? lwq::DType::kF16
                  : dtype == "bf16" ? lwq::DType::kBF16
                                    : lwq::DType::kF32;
  const absl::Status status = lwq::testing::WriteTinyModel(options, out);
  if (status.ok()) return 0;
  std::cerr << "make_model: " << status << "\n";
  return 1;
}
