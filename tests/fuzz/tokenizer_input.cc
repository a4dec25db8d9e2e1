#include <filesystem>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "tests/fuzz/inputs.h"
#include "tests/fuzz/promise.h"
#include "worker/engine/gguf/gguf_tokenizer.h"
#include "worker/engine/io/json_file.h"
#include "worker/engine/tokenizer/pipeline_tokenizer.h"
#include "worker/engine/tokenizer/sentencepiece_tokenizer.h"
#include "worker/engine/tokenizer/tiktoken.h"
#include "worker/engine/tokenizer/tokenizer.h"
#include "worker/engine/tokenizer/tokenizer_json.h"

namespace lwq::testing {
namespace {

// The model's embedding has more rows than a small tokenizer has tokens.
constexpr int64_t kVocabulary = 4096;

// What an accepted tokenizer makes of `text`: ids that are not negative, which it decodes; or a
// refusal of text that is not UTF-8.
absl::Status Encode(const Tokenizer& tokenizer, absl::string_view text) {
  for (const bool add_special_tokens : {false, true}) {
    const absl::StatusOr<std::vector<int32_t>> ids = tokenizer.Encode(text, add_special_tokens);
    if (!ids.ok()) {
      LWQ_RETURN_IF_ERROR(ExpectTyped(ids.status()));
      continue;
    }
    for (const int32_t id : *ids) {
      if (id < 0) return Broken(absl::StrCat("the token ", id));
    }
    (void)tokenizer.Decode(*ids);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> Written(const GgufTokenizerFiles& files) {
  GgufMetadata metadata;
  const absl::Status status = SetGgufTokenizer(files, kVocabulary, &metadata);
  if (!status.ok()) LWQ_RETURN_IF_ERROR(ExpectTyped(status));
  return status.ok();
}

bool IsJson(absl::string_view text) { return CheckJson(text, JsonLimits(), "fuzzed").ok(); }

}  // namespace

absl::StatusOr<bool> TryTokenizerJson(absl::string_view input) {
  const std::vector<std::string> parts = absl::StrSplit(input, absl::MaxSplits('\0', 2));
  const std::string text = parts.size() > 1 ? parts[1] : "";
  const std::string config = parts.size() > 2 ? parts[2] : "";
  ScratchFile("tokenizer.json", parts[0]);
  const std::string config_path = ScratchFile("tokenizer_config.json", config);
  if (config.empty()) std::filesystem::remove(config_path);
  bool accepted = false;
  if (IsJson(parts[0]) && (config.empty() || IsJson(config))) {
    GgufTokenizerFiles files;
    files.tokenizer_json = parts[0];
    files.tokenizer_config = config;
    LWQ_ASSIGN_OR_RETURN(accepted, Written(files));
  }
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadTokenizer(ScratchFolder());
  if (!tokenizer.ok()) {
    LWQ_RETURN_IF_ERROR(ExpectTyped(tokenizer.status()));
    return accepted;
  }
  LWQ_RETURN_IF_ERROR(Encode(**tokenizer, text));
  return true;
}

absl::StatusOr<bool> TrySentencePiece(absl::string_view input) {
  GgufTokenizerFiles files;
  files.tokenizer_model = std::string(input);
  bool accepted = false;
  if (!input.empty()) {
    LWQ_ASSIGN_OR_RETURN(accepted, Written(files));
  }
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      MakeSentencePieceTokenizer(files.tokenizer_model, TokenizerConfig());
  if (!tokenizer.ok()) {
    LWQ_RETURN_IF_ERROR(ExpectTyped(tokenizer.status()));
    return accepted;
  }
  LWQ_RETURN_IF_ERROR(Encode(**tokenizer, " The cat's\t12 \xe4\xb8\xad <s></s>"));
  return true;
}

absl::StatusOr<bool> TryTiktoken(absl::string_view input) {
  const absl::StatusOr<std::string> json = TokenizerJsonOfTiktoken(input);
  if (!json.ok()) {
    LWQ_RETURN_IF_ERROR(ExpectTyped(json.status()));
    return false;
  }
  // Whatever is accepted has a token for each byte.
  absl::StatusOr<TokenizerPipeline> pipeline = ReadTokenizerJson(*json, TokenizerConfig());
  if (!pipeline.ok()) return Broken(absl::StrCat("not read: ", pipeline.status().ToString()));
  LWQ_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                       PipelineTokenizer::Create(*std::move(pipeline), TokenizerConfig()));
  const std::string text = "The cat's 123\n\t  \xe4\xb8\xad\xf0\x9f\x98\x80 <|im_end|>aaaaaaa";
  LWQ_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer->Encode(text, true));
  if (tokenizer->Decode(ids) != text) return Broken("the text is another when decoded");
  return true;
}

}  // namespace lwq::testing
