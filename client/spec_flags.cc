#include "client/spec_flags.h"

#include <array>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/budget_text.h"
#include "client/upload.h"
#include "records/option_records.h"

namespace lwq::client {
namespace {

// What the server measures on that was given no text.
constexpr char kBuiltinText[] = "datasets/builtin-held-out";

constexpr std::array<FlagDef, 34> kSpecFlags = {{
    {"allocator", "NAME",
     "who chooses the formats: lwq, knapsack, two-level, three-level, ranges, uniform, drop "
     "(default "
     "lwq)",
     "lwq knapsack two-level three-level ranges uniform drop"},
    {"allocator-option", "LIST", "NAME=VALUE of the allocator's options (`lwqctl methods`)"},
    {"asymmetric", "", "zero points besides scales"},
    {"bits", "LIST",
     "candidate widths; 16: as in the source (default: what the profile has, and 16)"},
    {"budget", "BUDGET",
     "3.25bpw, 900MiB, 5200000 (bytes), 50% (of the source's weight files), 20GB@8192x4 (device "
     "memory) or Q4_K_M (no larger than llama.cpp's file of that name)",
     "2bit 3bit 4bit 8bit"},
    {"calibration", "FILE",
     "text or JSON lines for the statistics, or datasets/NAME of the server (default: "
     "datasets/builtin-mixed)"},
    {"calibration-tokens", "N", "tokens of it for the statistics (default 32768)"},
    {"compute", "TYPE", "f32, or bf16: faster where the processor has it (default f32)",
     "f32 bf16"},
    {"eval-limit", "N", "first N items of each task file (default: all)"},
    {"eval-tasks", "FILES", "multiple-choice JSON lines, commas between"},
    {"eval-text", "FILE",
     "held-out text for perplexity and KL (default: the server's, datasets/builtin-held-out)"},
    {"eval-tokens", "N", "tokens of it that are used (default 16384, of the server's own 4096)"},
    {"for", "ENGINE",
     "who shall load it: llama.cpp, vllm, sglang, transformers, gptqmodel (default vllm); a "
     "--profile that engine takes",
     "llama.cpp vllm sglang transformers gptqmodel"},
    {"format", "NAME", "gguf, compressed-tensors or gptq (default: what the engine loads)",
     "gguf compressed-tensors gptq"},
    {"formats", "LIST", "candidate weight formats by id, such as int4-g64,int3-row,dense"},
    {"group-size", "LIST",
     "weights that share a scale: 32, 64, 128 or row; several mix in one plan (default 128)"},
    {"judge-tokens", "N",
     "tokens of it, besides those, to judge the chosen plan on (default 4096)"},
    {"max-shard-size", "SIZE", "cut the weights into files of at most so much (default: one file)"},
    {"memory", "SIZE", "ceiling of the worker's own memory, such as 2GiB"},
    {"method", "NAME", "quantizer: awq, gptq, rtn, smoothquant (default gptq)",
     "awq gptq rtn smoothquant"},
    {"method-option", "LIST",
     "NAME=VALUE of the method's options, such as damping=0.02,act-order=false (`lwqctl methods`)"},
    {"no-act-order", "", "the method option act-order=false"},
    {"no-cache", "", "compute everything again"},
    {"no-eval", "", "no measurement of source and artifact"},
    {"no-refinement", "", "the method option refinement=false"},
    {"no-scale-search", "", "the method option scale-search=false"},
    {"preset", "NAME", "2bit, 3bit, 4bit or 8bit: the --budget of that name",
     "2bit 3bit 4bit 8bit"},
    {"profile", "NAME",
     "formats that may be used: vllm-lowbit, portable, transformers, w8a8, fp8, gptq, gptqmodel, "
     "llama.cpp (default: by --for)",
     "vllm-lowbit portable transformers w8a8 fp8 gptq gptqmodel llama.cpp"},
    {"quantize-head", "", "an untied output head too; some engines cannot load one"},
    {"score-tokens", "N", "tokens of it, besides those, to score on (default 1024)"},
    {"scorer", "NAME", "what tells which layers matter: kl, kl-full, lim, zd (default kl)",
     "kl kl-full lim zd"},
    {"scorer-option", "LIST", "NAME=VALUE of the scorer's options (`lwqctl methods`)"},
    {"seed", "N", "the scorer option seed=N"},
    {"trial-tokens", "N", "tokens of it, besides those, to try plans on (default 4096)"},
}};

// The profile that an engine has by default in a kind of artifact; of several the first.
struct Target {
  absl::string_view engine;
  absl::string_view format;
  absl::string_view profile;
};
constexpr Target kTargets[] = {{"llama.cpp", "gguf", "llama.cpp"},
                               {"vllm", "compressed-tensors", "vllm-lowbit"},
                               {"vllm", "gptq", "gptq"},
                               {"sglang", "compressed-tensors", "portable"},
                               {"sglang", "gptq", "gptq"},
                               {"transformers", "compressed-tensors", "transformers"},
                               {"gptqmodel", "gptq", "gptqmodel"}};

// One of the names of that column.
absl::StatusOr<std::string> NameOf(const Flags& flags, absl::string_view flag,
                                   absl::string_view Target::* column) {
  if (!flags.Has(flag)) return std::string();
  std::vector<absl::string_view> names;
  for (const Target& target : kTargets) {
    if (target.*column == flags.Get(flag)) return flags.Get(flag);
    if (!absl::c_linear_search(names, target.*column)) names.push_back(target.*column);
  }
  return Failure(reasons::kFlagInvalid,
                 absl::StrCat("--", flag, " \"", LogSafe(flags.Get(flag)), "\": expected one of ",
                              absl::StrJoin(names, ", ")));
}

absl::Status SetProfile(const Flags& flags, v1::QuantizeSpec* spec) {
  LWQ_ASSIGN_OR_RETURN(const std::string engine, NameOf(flags, "for", &Target::engine));
  LWQ_ASSIGN_OR_RETURN(const std::string format, NameOf(flags, "format", &Target::format));
  const std::string named = flags.Get("profile");
  spec->set_profile(named);
  if (engine.empty() && format.empty()) return absl::OkStatus();
  for (const Target& target : kTargets) {
    const bool fits = (engine.empty() || target.engine == engine) &&
                      (format.empty() || target.format == format) &&
                      (named.empty() || target.profile == named);
    if (!fits) continue;
    spec->set_profile(std::string(target.profile));
    return absl::OkStatus();
  }
  return Failure(reasons::kUsage, "--for, --format and --profile contradict each other: give one");
}

absl::Status SetFormats(const Flags& flags, v1::QuantizeSpec* spec) {
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> widths, flags.GetList("bits"));
  for (const std::string& width : widths) {
    int32_t bits = 0;
    if (!absl::SimpleAtoi(width, &bits) || bits < 1 || bits > 16) {
      return Failure(reasons::kFlagInvalid, absl::StrCat("--bits \"", LogSafe(width),
                                                         "\": expected widths such as 2,3,4,8"));
    }
    spec->add_formats(bits == 16 ? "dense" : absl::StrCat("int", bits));
  }
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> formats, flags.GetList("formats"));
  for (const std::string& format : formats) spec->add_formats(format);
  return absl::OkStatus();
}

absl::Status SetGroupSizes(const Flags& flags, v1::QuantizeSpec* spec) {
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> groups, flags.GetList("group-size"));
  for (const std::string& group : groups) {
    int64_t size = 0;
    if (group != "row" && group != "channel" && (!absl::SimpleAtoi(group, &size) || size < 1)) {
      return Failure(reasons::kFlagInvalid,
                     absl::StrCat("--group-size \"", LogSafe(group),
                                  "\": expected sizes such as 32,64,128 or row"));
    }
    spec->add_group_sizes(size);
  }
  return absl::OkStatus();
}

absl::Status SetNumbers(const Flags& flags, v1::QuantizeSpec* spec) {
  constexpr int64_t kMost = int64_t{1} << 40;
  LWQ_ASSIGN_OR_RETURN(const int64_t shard, flags.GetBytes("max-shard-size"));
  spec->set_max_shard_bytes(shard);
  LWQ_ASSIGN_OR_RETURN(const int64_t memory, flags.GetBytes("memory"));
  spec->set_memory_bytes(memory);
  LWQ_ASSIGN_OR_RETURN(const int64_t seed, flags.GetInt("seed", 0, 0, kMost));
  spec->set_seed(static_cast<uint64_t>(seed));
  LWQ_ASSIGN_OR_RETURN(const int64_t tokens, flags.GetInt("calibration-tokens", 0, 1, kMost));
  if (tokens > 0) spec->mutable_calibration()->set_num_tokens(tokens);
  LWQ_ASSIGN_OR_RETURN(const int64_t score_tokens, flags.GetInt("score-tokens", 0, 1, kMost));
  if (score_tokens > 0) spec->mutable_calibration()->set_score_tokens(score_tokens);
  LWQ_ASSIGN_OR_RETURN(const int64_t trial_tokens, flags.GetInt("trial-tokens", 0, 1, kMost));
  if (trial_tokens > 0) spec->mutable_calibration()->set_trial_tokens(trial_tokens);
  LWQ_ASSIGN_OR_RETURN(const int64_t judge_tokens, flags.GetInt("judge-tokens", 0, 1, kMost));
  if (judge_tokens > 0) spec->mutable_calibration()->set_judge_tokens(judge_tokens);
  LWQ_ASSIGN_OR_RETURN(const int64_t limit, flags.GetInt("eval-limit", 0, 1, kMost));
  LWQ_ASSIGN_OR_RETURN(const int64_t eval_tokens, flags.GetInt("eval-tokens", 0, 1, kMost));
  if (limit > 0) spec->mutable_evaluation()->set_limit(limit);
  if (eval_tokens > 0) spec->mutable_evaluation()->set_text_tokens(eval_tokens);
  return absl::OkStatus();
}

// An evaluation that is not set is the server's choice: perplexity and KL on its own text. One that
// asks for something else besides has to name that text.
void MeasureOnBuiltinText(v1::QuantizeSpec* spec) {
  constexpr int64_t kTokens = 4096;
  v1::Evaluation& evaluation = *spec->mutable_evaluation();
  evaluation.set_text_dataset(kBuiltinText);
  if (evaluation.text_tokens() == 0) evaluation.set_text_tokens(kTokens);
}

// A dataset that the server has already, and no file.
bool IsDatasetName(absl::string_view text) { return absl::StartsWith(text, "datasets/"); }

// "damping=0.02,act-order=false". What options there are and what they may be, the server knows.
absl::Status SetOptions(const Flags& flags, absl::string_view flag, OptionMap* options) {
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> parts, flags.GetList(flag));
  for (const std::string& part : parts) {
    const std::pair<std::string, std::string> option =
        absl::StrSplit(part, absl::MaxSplits('=', 1));
    if (option.first.empty() || option.second.empty() || options->count(option.first) > 0) {
      return Failure(reasons::kFlagInvalid,
                     absl::StrCat("--", flag, " \"", LogSafe(part),
                                  "\": expected NAME=VALUE, each name once"));
    }
    (*options)[option.first] = option.second;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> UploadNamed(Client* client, const std::string& path,
                                        std::map<std::string, std::string>* names) {
  if (IsDatasetName(path)) return path;
  LWQ_ASSIGN_OR_RETURN(const v1::Dataset dataset, UploadDataset(client, path));
  (*names)[dataset.name()] = Basename(path);
  return dataset.name();
}

absl::Status CheckFile(absl::string_view flag, const std::string& path) {
  if (path.empty() || IsDatasetName(path)) return absl::OkStatus();
  if (FileExists(path) && !IsDirectory(path)) return absl::OkStatus();
  return Failure(reasons::kFileNotFound,
                 absl::StrCat("--", flag, ": there is no file ", LogSafe(path)));
}

}  // namespace

absl::Span<const FlagDef> SpecFlags() { return kSpecFlags; }

absl::StatusOr<v1::QuantizeSpec> SpecFromFlags(const Flags& flags) {
  v1::QuantizeSpec spec;
  LWQ_ASSIGN_OR_RETURN(const std::string preset,
                       flags.GetChoice("preset", {"2bit", "3bit", "4bit", "8bit"}));
  if (!preset.empty() && flags.Has("budget")) {
    return Failure(reasons::kUsage, "--preset is a --budget: give one of them");
  }
  const std::string budget = preset.empty() ? flags.Get("budget") : preset;
  if (budget.empty()) return Failure(reasons::kUsage, "--budget is missing");
  LWQ_ASSIGN_OR_RETURN(*spec.mutable_budget(), ParseBudget(budget));
  spec.set_method(flags.Get("method"));
  spec.set_scorer(flags.Get("scorer"));
  spec.set_allocator(flags.Get("allocator"));
  LWQ_RETURN_IF_ERROR(SetProfile(flags, &spec));
  LWQ_ASSIGN_OR_RETURN(const std::string compute, flags.GetChoice("compute", {"f32", "bf16"}));
  spec.set_compute(compute);
  spec.set_asymmetric(flags.Has("asymmetric"));
  spec.set_no_act_order(flags.Has("no-act-order"));
  spec.set_no_scale_search(flags.Has("no-scale-search"));
  spec.set_no_refinement(flags.Has("no-refinement"));
  spec.set_no_cache(flags.Has("no-cache"));
  LWQ_RETURN_IF_ERROR(SetOptions(flags, "method-option", spec.mutable_method_options()));
  LWQ_RETURN_IF_ERROR(SetOptions(flags, "scorer-option", spec.mutable_scorer_options()));
  LWQ_RETURN_IF_ERROR(SetOptions(flags, "allocator-option", spec.mutable_allocator_options()));
  LWQ_RETURN_IF_ERROR(SetFormats(flags, &spec));
  LWQ_RETURN_IF_ERROR(SetGroupSizes(flags, &spec));
  spec.set_quantize_head(flags.Has("quantize-head"));
  LWQ_RETURN_IF_ERROR(SetNumbers(flags, &spec));
  if (flags.Has("no-eval") && (flags.Has("eval-text") || flags.Has("eval-tasks"))) {
    return Failure(reasons::kUsage, "--no-eval contradicts --eval-text and --eval-tasks");
  }
  if (flags.Has("no-eval")) spec.mutable_evaluation()->Clear();
  const bool asks_for_more = spec.has_evaluation() || flags.Has("eval-tasks");
  if (!flags.Has("no-eval") && !flags.Has("eval-text") && asks_for_more) {
    MeasureOnBuiltinText(&spec);
  }
  return spec;
}

bool IsForFiles(const v1::QuantizeSpec& spec) { return spec.profile() == kTargets[0].profile; }

absl::Status CheckDatasetFiles(const Flags& flags) {
  LWQ_RETURN_IF_ERROR(CheckFile("calibration", flags.Get("calibration")));
  LWQ_RETURN_IF_ERROR(CheckFile("eval-text", flags.Get("eval-text")));
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> tasks, flags.GetList("eval-tasks"));
  for (const std::string& task : tasks) LWQ_RETURN_IF_ERROR(CheckFile("eval-tasks", task));
  return absl::OkStatus();
}

absl::Status UploadDatasets(Client* client, const Flags& flags, v1::QuantizeSpec* spec,
                            std::map<std::string, std::string>* names) {
  if (flags.Has("calibration")) {
    LWQ_ASSIGN_OR_RETURN(const std::string name,
                         UploadNamed(client, flags.Get("calibration"), names));
    spec->mutable_calibration()->set_dataset(name);
  }
  if (flags.Has("eval-text")) {
    LWQ_ASSIGN_OR_RETURN(const std::string name,
                         UploadNamed(client, flags.Get("eval-text"), names));
    spec->mutable_evaluation()->set_text_dataset(name);
  }
  if (!flags.Has("no-eval")) (*names)[kBuiltinText] = "built-in text";
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> tasks, flags.GetList("eval-tasks"));
  for (const std::string& task : tasks) {
    LWQ_ASSIGN_OR_RETURN(const std::string name, UploadNamed(client, task, names));
    spec->mutable_evaluation()->add_task_datasets(name);
  }
  return absl::OkStatus();
}

}  // namespace lwq::client
