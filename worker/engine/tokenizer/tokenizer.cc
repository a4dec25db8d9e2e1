// See tokenizer.h: finds the files of a model directory.
#include "worker/engine/tokenizer/tokenizer.h"

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/io/model_files.h"
#include "worker/engine/tokenizer/pipeline_tokenizer.h"
#include "worker/engine/tokenizer/sentencepiece_tokenizer.h"
#include "worker/engine/tokenizer/tokenizer_config.h"
#include "worker/engine/tokenizer/tokenizer_json.h"

namespace lwq {
namespace {

constexpr int64_t kMaxTokenizerBytes = 64 << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& model_directory) {
  LWQ_ASSIGN_OR_ANNOTATE(const TokenizerConfig config, ReadTokenizerConfig(model_directory),
                         "reading the tokenizer of ", model_directory);
  constexpr char kJson[] = "tokenizer.json";
  if (HasModelFile(model_directory, kJson)) {
    LWQ_ASSIGN_OR_RETURN(const std::string text,
                         ReadModelFile(model_directory, kJson, kMaxTokenizerBytes));
    LWQ_ASSIGN_OR_ANNOTATE(TokenizerPipeline pipeline, ReadTokenizerJson(text, config), "reading ",
                           JoinPath(model_directory, kJson));
    return PipelineTokenizer::Create(std::move(pipeline), config);
  }
  const std::string model_path = JoinPath(model_directory, "tokenizer.model");
  if (FileExists(model_path)) {
    LWQ_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(model_path, kMaxTokenizerBytes));
    LWQ_ASSIGN_OR_ANNOTATE(std::unique_ptr<Tokenizer> tokenizer,
                           MakeSentencePieceTokenizer(bytes, config), "reading ", model_path);
    return tokenizer;
  }
  return Failure(reasons::kTokenizerMissing,
                 absl::StrCat(model_directory,
                              " has neither tokenizer.json nor tokenizer.model; put the model's "
                              "tokenizer files there"));
}

}  // namespace lwq
