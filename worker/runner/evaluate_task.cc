// Measures one model on one dataset: perplexity and, against a source, KL divergence of a text;
// accuracy on multiple-choice items.
#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/status_macros.h"
#include "worker/engine/artifact/container.h"
#include "worker/engine/eval/multiple_choice.h"
#include "worker/engine/eval/perplexity.h"
#include "worker/engine/eval/text_windows.h"
#include "worker/engine/plan/memory_model.h"
#include "worker/runner/artifact_input.h"
#include "worker/runner/task_memory.h"

namespace lwq {
namespace {

constexpr int64_t kDefaultTextTokens = 16384;
constexpr int64_t kDefaultSequenceLength = 256;

// Of the text that is to be evaluated; negative: the whole text.
int64_t TokensOf(const v1::EvaluateTask& task) {
  return task.text_tokens() == 0 ? kDefaultTextTokens : task.text_tokens();
}

// Any model that lwq reads, dense or one of its artifacts.
struct ReadableModel {
  ReadableArtifact artifact;
  std::unique_ptr<Decoder> decoder;
};

// `made_from`: the source of an artifact, or empty. `uses_spare`: it makes several passes.
absl::StatusOr<ReadableModel> OpenReadable(const TaskContext& context, const v1::EvaluateTask& task,
                                           const std::string& directory,
                                           const std::string& made_from, bool uses_spare) {
  ReadableModel model;
  LWQ_ASSIGN_OR_RETURN(ComputeType compute, ParseComputeType(task.compute()));
  LWQ_ASSIGN_OR_ANNOTATE(model.artifact, OpenArtifact(directory, made_from), "model ", directory);
  LWQ_ASSIGN_OR_RETURN(DecoderSpec spec, ReadDecoderSpec(model.artifact.described_in));
  int64_t chunk_tokens = task.chunk_tokens();
  MemoryQuestion memory;
  memory.bf16 = compute == ComputeType::kBF16;
  memory.longest_window = LongestWindow(TokensOf(task), spec.max_positions);
  if (!task.model().has_manifest()) {  // nobody planned for it
    LWQ_ASSIGN_OR_RETURN(const int64_t most, ChunkTokensOfEvaluation(context, spec, memory));
    chunk_tokens = chunk_tokens == 0 ? most : std::min(chunk_tokens, most);
  }
  LWQ_ASSIGN_OR_RETURN(
      model.decoder,
      OpenDecoder(context, std::move(spec), model.artifact.weights.get(), compute, chunk_tokens));
  if (uses_spare) {
    UseSpareMemory(context, "evaluate", SizesOf(model.decoder->spec()), memory, *model.decoder);
  }
  return model;
}

v1::KlResult ToProto(const DivergenceResult& divergence) {
  v1::KlResult proto;
  proto.set_mean(divergence.mean);
  proto.set_median(divergence.median);
  proto.set_p99(divergence.p99);
  proto.set_standard_error(divergence.standard_error);
  proto.set_top1_agreement(divergence.top1_agreement);
  proto.set_num_tokens(divergence.num_tokens);
  return proto;
}

// The text's windows and what the rolling form scores of it: about as many tokens, so that a long
// text does not make a job long.
struct EvaluatedText {
  TokenBatch windows;
  std::vector<std::string> rolling;
};

absl::StatusOr<EvaluatedText> ReadText(const v1::EvaluateTask& task, const DecoderSpec& spec,
                                       const RequestEncoder& encoder, absl::string_view bytes) {
  const int64_t length =
      std::min(task.sequence_length() > 0 ? task.sequence_length() : kDefaultSequenceLength,
               spec.max_positions);
  const int64_t tokens = TokensOf(task);
  const int64_t max_windows = tokens < 0 ? 0 : std::max<int64_t>(1, tokens / length);
  LWQ_ASSIGN_OR_RETURN(DisjointWindows windows,
                       DisjointWindows::Create(&encoder, length, max_windows));
  LeadingText leading(tokens < 0 ? std::numeric_limits<int64_t>::max()
                                 : tokens * kRollingBytesPerToken);
  bool wants_tokens = true, wants_text = true;
  LWQ_RETURN_IF_ERROR(ForEachDocument(bytes, KindOf(task.dataset_kind()),
                                      [&](absl::string_view document) -> absl::StatusOr<bool> {
                                        if (wants_text) wants_text = leading.Add(document);
                                        if (wants_tokens) {
                                          LWQ_ASSIGN_OR_RETURN(wants_tokens, windows.Add(document));
                                        }
                                        return wants_text || wants_tokens;
                                      }));
  EvaluatedText text;
  LWQ_ASSIGN_OR_RETURN(text.windows, windows.Finish());
  text.rolling = leading.documents();
  return text;
}

absl::Status EvaluateText(const EvaluatedText& text, const Decoder& decoder, const Decoder* source,
                          const RequestEncoder& encoder, const EvalOptions& options,
                          v1::TextResult& result) {
  LWQ_ASSIGN_OR_RETURN(WindowResult window, WindowPerplexity(decoder, source, text.windows,
                                                             SubProgress(options, 0, 0.6)));
  result.set_num_tokens(window.num_tokens);
  result.set_token_perplexity(window.token_perplexity);
  result.set_sequence_length(window.sequence_length);
  if (window.divergence) *result.mutable_kl() = ToProto(*window.divergence);

  LWQ_ASSIGN_OR_RETURN(RollingResult rolling, RollingPerplexity(decoder, encoder, text.rolling,
                                                                SubProgress(options, 0.6, 0.4)));
  result.set_rolling_nll(rolling.nll);
  result.set_num_rolling_tokens(rolling.num_tokens);
  result.set_word_perplexity(rolling.word_perplexity);
  result.set_byte_perplexity(rolling.byte_perplexity);
  result.set_bits_per_byte(rolling.bits_per_byte);
  return absl::OkStatus();
}

absl::Status EvaluateChoices(const v1::EvaluateTask& task, const Decoder& decoder,
                             const RequestEncoder& encoder, absl::string_view bytes,
                             const EvalOptions& options, v1::ChoiceResult& result) {
  LWQ_ASSIGN_OR_RETURN(ChoiceDataset dataset, ReadChoiceDataset(bytes, task.limit()));
  LWQ_ASSIGN_OR_RETURN(MultipleChoiceResult measured,
                       EvaluateMultipleChoice(decoder, encoder, dataset.items, options));
  result.set_num_items(measured.num_items);
  result.set_acc(measured.acc);
  result.set_acc_stderr(measured.acc_stderr);
  result.set_acc_norm(measured.acc_norm);
  result.set_acc_norm_stderr(measured.acc_norm_stderr);
  for (const ChoiceItemResult& item : measured.items) {
    v1::ChoiceItem* out = result.add_items();
    for (double log_likelihood : item.log_likelihoods) out->add_log_likelihoods(log_likelihood);
    for (bool greedy : item.is_greedy) out->add_is_greedy(greedy);
    out->set_gold(item.gold);
    out->set_predicted(item.predicted);
    out->set_predicted_norm(item.predicted_norm);
  }
  return absl::OkStatus();
}

// A text dataset, or JSON lines of documents, is for perplexity; other JSON lines are choices.
bool HasChoices(const v1::EvaluateTask& task, absl::string_view bytes) {
  return task.dataset_kind() == v1::Dataset::JSONL && HasChoiceForm(bytes);
}

}  // namespace

absl::StatusOr<v1::TaskOutput> RunEvaluate(const TaskContext& context,
                                           const v1::EvaluateTask& task) {
  // The result is kept under the model's digest.
  LWQ_RETURN_IF_ERROR(CheckUnchanged(task.model()));
  const bool is_artifact = task.directory().empty() && task.subject() == "artifact";
  std::string directory = task.directory().empty() ? task.model().directory() : task.directory();
  std::string against = task.against_directory();
  if (is_artifact) {
    LWQ_ASSIGN_OR_RETURN(directory, MaterializeArtifact(context));
    against = task.model().directory();
  }
  LWQ_ASSIGN_OR_RETURN(const auto dataset, MapDataset(context, task.dataset()));
  const absl::string_view bytes = TextOf(*dataset);
  const std::string made_from = is_artifact ? task.model().directory() : against;
  LWQ_ASSIGN_OR_RETURN(ReadableModel model,
                       OpenReadable(context, task, directory, made_from, /*uses_spare=*/true));
  LWQ_ASSIGN_OR_RETURN(auto tokenizer, LoadTokenizer(model.artifact.described_in));
  // An artifact has its source's tokenizer; of another directory's nothing is known.
  if (task.directory().empty()) {
    tokenizer = KeepTokens(std::move(tokenizer), task.model().manifest().tokenizer_digest(),
                           context.evaluation_tokens);
  }
  LWQ_ASSIGN_OR_RETURN(BosMode bos, ParseBosMode(task.bos()));
  LWQ_ASSIGN_OR_RETURN(RequestEncoder encoder, RequestEncoder::Create(tokenizer.get(), bos));
  EvalOptions options;
  options.scratch_directory = context.blobs->ScratchDirectory();
  options.progress = [&](double fraction) {
    return context.progress(fraction, absl::StrCat(task.subject(), " on ", task.dataset_name()));
  };

  v1::TaskOutput output;
  v1::EvaluationResult& result = *output.mutable_evaluate();
  result.set_subject(task.subject());
  result.set_dataset(task.dataset_name());
  result.set_bos(std::string(NameOf(bos)));
  if (HasChoices(task, bytes)) {
    LWQ_RETURN_IF_ERROR(
        EvaluateChoices(task, *model.decoder, encoder, bytes, options, *result.mutable_choice()));
    return output;
  }
  LWQ_ASSIGN_OR_RETURN(const EvaluatedText text,
                       ReadText(task, model.decoder->spec(), encoder, bytes));
  ReadableModel source;
  if (!against.empty()) {
    LWQ_ASSIGN_OR_RETURN(
        source, OpenReadable(context, task, against, /*made_from=*/"", /*uses_spare=*/false));
  }
  LWQ_RETURN_IF_ERROR(EvaluateText(text, *model.decoder, source.decoder.get(), encoder, options,
                                   *result.mutable_text()));
  return output;
}

}  // namespace lwq
