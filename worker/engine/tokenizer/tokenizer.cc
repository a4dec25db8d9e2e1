// See tokenizer.h: finds the files of a model directory.
#include "worker/engine/tokenizer/tokenizer.h"

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/io/model_files.h"
#include "worker/engine/tokenizer/pipeline_tokenizer.h"
#include "worker/engine/tokenizer/sentencepiece_tokenizer.h"
#include "worker/engine/tokenizer/tiktoken.h"
#include "worker/engine/tokenizer/tokenizer_config.h"
#include "worker/engine/tokenizer/tokenizer_json.h"

namespace lwq {
namespace {

constexpr char kJson[] = "tokenizer.json", kModel[] = "tokenizer.model";
constexpr int64_t kMaxTokenizerBytes = 64 << 20, kMaxTiktokenBytes = 16 << 20;

// Whether qwen.tiktoken is the model's tokenizer, as no other file is.
bool IsTiktoken(const std::string& model_directory) {
  return !HasModelFile(model_directory, kJson) && !FileExists(JoinPath(model_directory, kModel)) &&
         FileExists(JoinPath(model_directory, kTiktokenFile));
}

}  // namespace

absl::StatusOr<std::string> ReadTokenizerText(const std::string& model_directory) {
  if (HasModelFile(model_directory, kJson)) {
    return ReadModelFile(model_directory, kJson, kMaxTokenizerBytes);
  }
  if (!IsTiktoken(model_directory)) return std::string();
  LWQ_ASSIGN_OR_RETURN(const std::string ranks,
                       ReadFile(JoinPath(model_directory, kTiktokenFile), kMaxTiktokenBytes));
  return TokenizerJsonOfTiktoken(ranks);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& model_directory) {
  LWQ_ASSIGN_OR_ANNOTATE(TokenizerConfig config, ReadTokenizerConfig(model_directory),
                         "reading the tokenizer of ", model_directory);
  const bool is_tiktoken = IsTiktoken(model_directory);
  if (is_tiktoken || HasModelFile(model_directory, kJson)) {
    if (is_tiktoken && config.eos_token.empty()) config.eos_token = kTiktokenEnd;
    LWQ_ASSIGN_OR_RETURN(const std::string text, ReadTokenizerText(model_directory));
    LWQ_ASSIGN_OR_ANNOTATE(TokenizerPipeline pipeline, ReadTokenizerJson(text, config), "reading ",
                           JoinPath(model_directory, is_tiktoken ? kTiktokenFile : kJson));
    return PipelineTokenizer::Create(std::move(pipeline), config);
  }
  const std::string model_path = JoinPath(model_directory, kModel);
  if (FileExists(model_path)) {
    LWQ_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(model_path, kMaxTokenizerBytes));
    LWQ_ASSIGN_OR_ANNOTATE(std::unique_ptr<Tokenizer> tokenizer,
                           MakeSentencePieceTokenizer(bytes, config), "reading ", model_path);
    return tokenizer;
  }
  return Failure(reasons::kTokenizerMissing,
                 absl::StrCat(model_directory,
                              " has neither tokenizer.json, tokenizer.model nor qwen.tiktoken; put "
                              "the model's tokenizer files there"));
}

}  // namespace lwq
