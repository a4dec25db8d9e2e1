#include "client/local_artifact.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/download.h"
#include "google/protobuf/util/json_util.h"
#include "nlohmann/json.hpp"

namespace lwq::client {
namespace {

constexpr char kReportName[] = "lwq-report.json";
constexpr int64_t kMostReportBytes = int64_t{1} << 30;

absl::Status NotReadable(const std::string& path, absl::string_view why) {
  return CorruptFailure(reasons::kJsonInvalid.name,
                        absl::StrCat("reading the report ", LogSafe(path), ": ", why));
}

}  // namespace

bool IsArtifactHere(const std::string& path) {
  if (IsFileOutput(path)) return FileExists(path);
  if (!IsDirectory(path)) return false;
  // A bare word may be a server's artifact, which a folder of that name must not hide.
  return absl::StrContains(path, '/') || FileExists(ProofPath(path, kReportName));
}

absl::StatusOr<DiffSide> ReadSideAt(const std::string& path) {
  const std::string report = ProofPath(path, kReportName);
  if (!FileExists(report)) {
    return Failure(reasons::kFileNotFound,
                   absl::StrCat("there is no ", LogSafe(report),
                                ", which lwqctl puts beside an artifact that it fetches"));
  }
  LWQ_ASSIGN_OR_RETURN(const std::string text, ReadFile(report, kMostReportBytes));
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("job") || !json.contains("artifact")) {
    return NotReadable(report, "it has no job and artifact");
  }
  DiffSide side;
  google::protobuf::util::JsonParseOptions newer;
  newer.ignore_unknown_fields = true;
  const auto job = JsonStringToMessage(json["job"].dump(), &side.job, newer);
  const auto artifact = JsonStringToMessage(json["artifact"].dump(), &side.artifact, newer);
  if (!job.ok()) return NotReadable(report, LogSafe(job.ToString()));
  if (!artifact.ok()) return NotReadable(report, LogSafe(artifact.ToString()));
  side.artifact.set_name(path);
  return side;
}

}  // namespace lwq::client
