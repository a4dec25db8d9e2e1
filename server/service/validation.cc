#include "server/service/validation.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/utf8.h"
#include "records/canonical.h"
#include "server/dispatch/transitions.h"

namespace lwq {
namespace {

constexpr int kMaxPageSize = 1000;
constexpr int kMaxFormats = 32;
constexpr int kMaxGroupSizes = 8;
constexpr size_t kMaxPathBytes = 4096;

bool IsLowerAlnum(char c) { return absl::ascii_islower(c) || absl::ascii_isdigit(c); }

bool HasControl(absl::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

void CheckRange(absl::string_view field, int64_t value, int64_t low, int64_t high,
                FieldErrors& errors, absl::string_view reason = "FIELD_INVALID") {
  if (value < low || value > high) {
    errors.Add(field, absl::StrCat(value, " is not between ", low, " and ", high), reason);
  }
}

void CheckDirectory(absl::string_view field, absl::string_view path, FieldErrors& errors) {
  if (!absl::StartsWith(path, "/") || path.size() > kMaxPathBytes || HasControl(path)) {
    errors.Add(field, "has to be an absolute path", "PATH_NOT_ALLOWED");
  }
}

void CheckCompute(absl::string_view field, absl::string_view compute, FieldErrors& errors) {
  if (!compute.empty() && compute != "f32" && compute != "bf16") {
    errors.Add(field, absl::StrCat("\"", compute, "\" is neither f32 nor bf16"));
  }
}

// `prefix`: "quantize.evaluation".
void CheckEvaluation(absl::string_view prefix, const v1::Evaluation& evaluation,
                     FieldErrors& errors) {
  const auto field = [&](absl::string_view name) { return absl::StrCat(prefix, ".", name); };
  CheckRange(field("text_tokens"), evaluation.text_tokens(), 0, int64_t{1} << 32, errors);
  CheckRange(field("sequence_length"), evaluation.sequence_length(), 0, 1 << 20, errors);
  CheckRange(field("limit"), evaluation.limit(), 0, int64_t{1} << 32, errors);
  const std::string& bos = evaluation.bos();
  if (!bos.empty() && bos != "tokenizer" && bos != "always" && bos != "never") {
    errors.Add(field("bos"), absl::StrCat("\"", bos, "\" is not tokenizer, always or never"));
  }
  if (evaluation.task_datasets_size() > 64) errors.Add(field("task_datasets"), "more than 64");
}

void CheckQuantize(const v1::QuantizeSpec& spec, FieldErrors& errors) {
  if (!CheckName(spec.model(), "models").ok()) {
    errors.Add("quantize.model", absl::StrCat("\"", spec.model(), "\" is not models/{id}"),
               "NAME_INVALID");
  }
  if (spec.formats_size() > kMaxFormats) errors.Add("quantize.formats", "more than 32 formats");
  if (spec.group_sizes_size() > kMaxGroupSizes) errors.Add("quantize.group_sizes", "more than 8");
  for (int64_t group_size : spec.group_sizes()) {
    CheckRange("quantize.group_sizes", group_size, 0, 1 << 20, errors, "GROUP_SIZE");
  }
  CheckRange("quantize.max_shard_bytes", spec.max_shard_bytes(), 0, int64_t{1} << 50, errors);
  CheckRange("quantize.memory_bytes", spec.memory_bytes(), 0, int64_t{1} << 50, errors);
  if (!std::isfinite(spec.damping()) || spec.damping() < 0 || spec.damping() > 1) {
    errors.Add("quantize.damping", absl::StrCat(spec.damping(), " is not between 0 and 1"));
  }
  CheckCompute("quantize.compute", spec.compute(), errors);
  const v1::Calibration& calibration = spec.calibration();
  CheckRange("quantize.calibration.num_tokens", calibration.num_tokens(), 0, int64_t{1} << 27,
             errors, "CALIBRATION_INVALID");
  CheckRange("quantize.calibration.sequence_length", calibration.sequence_length(), 0, 32768,
             errors, "CALIBRATION_INVALID");
  CheckRange("quantize.calibration.score_tokens", calibration.score_tokens(), 0, int64_t{1} << 27,
             errors, "CALIBRATION_INVALID");
  CheckRange("quantize.calibration.trial_tokens", calibration.trial_tokens(), 0, int64_t{1} << 27,
             errors, "CALIBRATION_INVALID");
  CheckRange("quantize.calibration.judge_tokens", calibration.judge_tokens(), 0, int64_t{1} << 27,
             errors, "CALIBRATION_INVALID");
  CheckEvaluation("quantize.evaluation", spec.evaluation(), errors);
}

}  // namespace

void FieldErrors::Add(absl::string_view field, absl::string_view what, absl::string_view reason) {
  if (errors_.empty()) reason_ = std::string(reason);
  errors_.push_back({std::string(field), std::string(what)});
}

absl::Status FieldErrors::status() const {
  if (errors_.empty()) return absl::OkStatus();
  absl::Status status = InvalidFailure(
      reason_, absl::StrJoin(errors_, "; ", [](std::string* out, const FieldViolation& error) {
        absl::StrAppend(out, error.field, ": ", error.description);
      }));
  for (const FieldViolation& error : errors_) {
    AddFieldViolation(error.field, error.description, &status);
  }
  return status;
}

bool IsResourceId(absl::string_view id) {
  if (id.empty() || id.size() > 63 || !absl::ascii_islower(id.front()) || id.back() == '-') {
    return false;
  }
  return std::all_of(id.begin(), id.end(), [](char c) { return IsLowerAlnum(c) || c == '-'; });
}

absl::Status CheckName(absl::string_view name, absl::string_view collection) {
  const std::string prefix = absl::StrCat(collection, "/");
  if (!absl::StartsWith(name, prefix) || !IsResourceId(name.substr(prefix.size()))) {
    return Failure(reasons::kNameInvalid,
                   absl::StrCat("\"", LogSafe(CutToCharacters(name, 200)), "\" is not ", collection,
                                "/{id}; ids are lower-case "
                                "letters, digits and dashes"));
  }
  return absl::OkStatus();
}

std::string MakeId(absl::string_view text, size_t max) {
  std::string id;
  for (char c : text) {
    if (id.size() >= max) break;
    const char lower = absl::ascii_tolower(c);
    if (IsLowerAlnum(lower)) {
      id += lower;
    } else if (!id.empty() && id.back() != '-') {
      id += '-';
    }
  }
  while (!id.empty() && id.back() == '-') id.pop_back();
  if (id.empty() || !absl::ascii_islower(id.front())) id = absl::StrCat("m-", id);
  while (!id.empty() && (id.size() > max || id.back() == '-')) id.pop_back();
  return id;
}

absl::Status CheckRequestId(absl::string_view request_id) {
  bool good = request_id.empty() || request_id.size() == 36;
  for (size_t i = 0; good && i < request_id.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    good = dash ? request_id[i] == '-' : absl::ascii_isxdigit(request_id[i]);
  }
  if (good) return absl::OkStatus();
  return Failure(reasons::kRequestIdInvalid, "request_id has to be a UUID or empty");
}

void CheckLabels(const google::protobuf::Map<std::string, std::string>& labels,
                 FieldErrors& errors) {
  if (labels.size() > static_cast<size_t>(kMaxLabels)) {
    errors.Add("labels", absl::StrCat(labels.size(), " labels, at most ", kMaxLabels),
               "LABEL_INVALID");
  }
  for (const auto& [key, value] : labels) {
    if (key.empty() || key.size() > 63 || HasControl(key)) {
      errors.Add("labels", "a key has 1 to 63 bytes without control characters", "LABEL_INVALID");
    }
    if (value.size() > 128 || HasControl(value)) {
      errors.Add("labels", "a value has at most 128 bytes without control characters",
                 "LABEL_INVALID");
    }
  }
}

void CheckPriority(v1::Job::Priority priority, FieldErrors& errors) {
  // Enums of proto3 are open: any number arrives.
  if (!v1::Job::Priority_IsValid(priority)) {
    errors.Add("priority",
               absl::StrCat(static_cast<int>(priority), " is none of LOW, NORMAL, HIGH"));
  }
}

void CheckSpec(const v1::JobSpec& spec, FieldErrors& errors) {
  switch (spec.work_case()) {
    case v1::JobSpec::kQuantize:
      CheckQuantize(spec.quantize(), errors);
      return;
    case v1::JobSpec::kEvaluate: {
      const v1::EvaluateSpec& evaluate = spec.evaluate();
      CheckDirectory("evaluate.model_directory", evaluate.model_directory(), errors);
      if (!evaluate.against_directory().empty()) {
        CheckDirectory("evaluate.against_directory", evaluate.against_directory(), errors);
      }
      CheckCompute("evaluate.compute", evaluate.compute(), errors);
      CheckEvaluation("evaluate.evaluation", evaluate.evaluation(), errors);
      if (evaluate.evaluation().text_dataset().empty() &&
          evaluate.evaluation().task_datasets().empty()) {
        errors.Add("evaluate.evaluation", "names no dataset");
      }
      return;
    }
    default:
      errors.Add("spec", "has neither quantize nor evaluate");
  }
}

std::string Fingerprint(const google::protobuf::Message& message) {
  return CanonicalDigest(message);
}

absl::StatusOr<int> PageSize(int requested, int standard) {
  if (requested < 0) {
    return Failure(reasons::kPageSizeInvalid,
                   absl::StrCat("page_size ", requested, " is negative"));
  }
  return requested == 0 ? standard : std::min(requested, kMaxPageSize);
}

std::string MakePageToken(const Record& last, absl::string_view filter) {
  std::string token;
  absl::WebSafeBase64Escape(
      absl::StrCat(Sha256Hex(filter).substr(0, 16), ",", last.order, ",", last.key), &token);
  return token;
}

absl::Status ApplyPageToken(const std::string& token, absl::string_view filter, ListQuery& query) {
  if (token.empty()) return absl::OkStatus();
  std::string text;
  const bool decoded = token.size() < 1000 && absl::WebSafeBase64Unescape(token, &text);
  const std::vector<std::string> parts = absl::StrSplit(text, absl::MaxSplits(',', 2));
  if (!decoded || parts.size() != 3 || parts[0] != Sha256Hex(filter).substr(0, 16) ||
      !absl::SimpleAtoi(parts[1], &query.after_order)) {
    return Failure(reasons::kPageTokenInvalid,
                   "page_token is not one of this list with these filters");
  }
  query.after_key = parts[2];
  return absl::OkStatus();
}

}  // namespace lwq
