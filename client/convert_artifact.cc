#include "client/convert_artifact.h"

#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/download.h"
#include "client/interrupt.h"
#include "client/process.h"
#include "client/size_text.h"
#include "client/supervisor.h"
#include "client/verify_artifact.h"
#include "nlohmann/json.hpp"

namespace lwq::client {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMostAnswerBytes = int64_t{1} << 20;
constexpr size_t kTailBytes = 1500;
constexpr char kOfOneFile[] = "gguf";  // the kind of artifact

absl::StatusOr<Json> ParseAnswer(absl::string_view text) {
  const Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (json.is_object()) return json;
  return absl::InternalError(absl::StrCat("lwq-worker --convert said: ", LogSafe(text)));
}

// What is not as its own manifest says would otherwise become an artifact with a clean one.
absl::Status CheckSource(const std::string& source) {
  if (IsFileOutput(source) && FileExists(source) && !IsDirectory(source)) {
    return Failure(reasons::kFormatUnsupported,
                   absl::StrCat(LogSafe(source),
                                ": of GGUF files no other kind is made; quantize the source model "
                                "for it, or convert its compressed-tensors or gptq artifact"));
  }
  if (!IsDirectory(source)) {
    return Failure(reasons::kFileNotFound,
                   absl::StrCat("there is no artifact's directory ", LogSafe(source)));
  }
  if (!FileExists(ProofPath(source, "lwq-manifest.json"))) return absl::OkStatus();
  return VerifyArtifactAt(source).status();
}

// A disk that is full, by that name and by its place: the worker names a file of its own.
absl::Status WithPlace(const absl::Status& status, const std::string& place) {
  if (status.code() != absl::StatusCode::kResourceExhausted) return status;
  if (ReasonOf(status) == reasons::kHostOom.name) return status;
  return Failure(reasons::kStorageFull,
                 absl::StrCat("the disk of ", LogSafe(place), " is full; nothing was left there"));
}

absl::StatusOr<std::string> RunWorker(const ConvertFlags& flags, const std::string& directory,
                                      const std::string& scratch) {
  LWQ_ASSIGN_OR_RETURN(const std::string binaries, OwnDirectory());
  ProcessOptions process;
  process.argv = {JoinPath(binaries, "lwq-worker"),
                  "--convert",
                  flags.source,
                  "--convert-to",
                  flags.format,
                  "--convert-out",
                  directory};
  if (flags.round_scales) process.argv.push_back("--round-scales");
  process.log_path = JoinPath(scratch, "answer");
  process.die_with_parent = true;
  LWQ_ASSIGN_OR_RETURN(const pid_t pid, StartProcess(process));
  int wait_status = 0;
  while (::waitpid(pid, &wait_status, 0) < 0 && errno == EINTR) {
    if (!CheckInterrupted().ok()) ::kill(pid, SIGKILL);
  }
  LWQ_RETURN_IF_ERROR(CheckInterrupted());
  return AnswerOfConvert(wait_status, LogTail(process.log_path, kMostAnswerBytes));
}

}  // namespace

absl::StatusOr<std::string> AnswerOfConvert(int wait_status, absl::string_view log) {
  if (!WIFEXITED(wait_status) || WEXITSTATUS(wait_status) > 1) {
    const absl::string_view tail = log.substr(log.size() - std::min(log.size(), kTailBytes));
    return Failure(reasons::kChildDied,
                   absl::StrCat("lwq-worker --convert ", DescribeExit(wait_status),
                                tail.empty() ? " and said nothing" : " and said last: ", tail));
  }
  // Warnings go the same way, and a library may say something at the very end.
  const std::vector<absl::string_view> lines = absl::StrSplit(log, '\n', absl::SkipWhitespace());
  for (auto line = lines.rbegin(); line != lines.rend(); ++line) {
    if (ParseAnswer(*line).ok()) return absl::StrCat(*line, "\n");
  }
  return ParseAnswer(lines.empty() ? "nothing" : lines.back()).status();
}

absl::Status StatusOfConvert(absl::string_view json) {
  LWQ_ASSIGN_OR_RETURN(const Json answer, ParseAnswer(json));
  if (!answer.contains("reason")) return absl::OkStatus();
  const auto text = [&](const char* key) {
    const auto found = answer.find(key);
    return found != answer.end() && found->is_string() ? found->get<std::string>() : "";
  };
  const auto code = answer.find("code");
  const bool known = code != answer.end() && code->is_number_unsigned() && *code > 0 && *code <= 16;
  return Failure(
      known ? static_cast<absl::StatusCode>(code->get<int>()) : absl::StatusCode::kInternal,
      text("reason"), text("message"));
}

absl::StatusOr<std::string> ConvertArtifactAt(const ConvertFlags& flags) {
  LWQ_RETURN_IF_ERROR(CheckOutputPlace(flags.out));
  if (IsFileOutput(flags.out) != (flags.format == kOfOneFile)) {
    return Failure(reasons::kUsage,
                   "--out is a file FILE.gguf for --format gguf, and else a directory");
  }
  LWQ_RETURN_IF_ERROR(CheckSource(flags.source));
  const std::string parent = Dirname(flags.out);
  LWQ_RETURN_IF_ERROR(MakeDirectories(parent));
  // Of a new name, which no source and no interrupted download can have, and on the disk of `out`.
  LWQ_ASSIGN_OR_RETURN(const TempDirectory scratch, TempDirectory::Create(parent));
  const std::string staging = JoinPath(scratch.path(), "artifact");
  LWQ_ASSIGN_OR_RETURN(const std::string answer, RunWorker(flags, staging, scratch.path()));
  LWQ_RETURN_IF_ERROR(WithPlace(StatusOfConvert(answer), parent));
  LWQ_RETURN_IF_ERROR(Publish(staging, flags.out));
  return answer;
}

absl::StatusOr<std::string> ConvertedText(absl::string_view json, const std::string& out) {
  LWQ_ASSIGN_OR_RETURN(const Json answer, ParseAnswer(json));
  std::vector<std::string> linears;
  const Json counts = answer.value("linears", Json::object());
  for (const auto& entry : counts.items()) {
    linears.push_back(absl::StrCat(entry.value().get<int64_t>(), " in ", LogSafe(entry.key())));
  }
  const int64_t rounded = answer.value("rounded_scales", int64_t{0});
  return absl::StrCat(
      out, ": ", FormatBytes(answer.value("weight_bytes", int64_t{0})), ", ",
      absl::StrJoin(linears, ", "), "\n",
      rounded == 0
          ? "lossless: every weight is the same as before, to the bit\n"
          : absl::StrFormat("not lossless: %d scales were rounded, by up to %.2g of their value\n",
                            rounded, answer.value("largest_rounding", 0.0)));
}

}  // namespace lwq::client
