#include "client/convert_artifact.h"

#include <sys/wait.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "client/download.h"
#include "client/process.h"
#include "client/size_text.h"
#include "nlohmann/json.hpp"

namespace lwq::client {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMostAnswerBytes = int64_t{1} << 20;
constexpr char kOfOneFile[] = "gguf";  // the kind of artifact

absl::StatusOr<Json> ParseAnswer(absl::string_view text) {
  const Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (json.is_object()) return json;
  return absl::InternalError(absl::StrCat("lwq-worker --convert said: ", LogSafe(text)));
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
  while (::waitpid(pid, &wait_status, 0) < 0 && errno == EINTR) continue;
  return ReadFile(process.log_path, kMostAnswerBytes);
}

}  // namespace

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
  if (!IsDirectory(flags.source)) {
    return Failure(absl::StatusCode::kNotFound, "FILE_NOT_FOUND",
                   absl::StrCat("there is no artifact's directory ", LogSafe(flags.source)));
  }
  LWQ_RETURN_IF_ERROR(CheckOutputPlace(flags.out));
  if (IsFileOutput(flags.out) != (flags.format == kOfOneFile)) {
    return InvalidFailure("USAGE",
                          "--out is a file FILE.gguf for --format gguf, and else a directory");
  }
  const std::string staging = absl::StrCat(flags.out, ".partial");
  LWQ_RETURN_IF_ERROR(RemoveAll(staging));
  LWQ_ASSIGN_OR_RETURN(const TempDirectory scratch, TempDirectory::Create());
  LWQ_ASSIGN_OR_RETURN(const std::string answer, RunWorker(flags, staging, scratch.path()));
  absl::Status status = StatusOfConvert(answer);
  if (status.ok()) status = Publish(staging, flags.out);
  if (!status.ok()) {
    (void)RemoveAll(staging);
    return status;
  }
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
