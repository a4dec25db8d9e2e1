#include "client/report.h"

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "client/results.h"

namespace lwq::client {

absl::Status WriteReport(Client* client, const v1::Artifact& artifact, const std::string& staging) {
  constexpr char kName[] = "lwq-report.json";
  for (const v1::NamedBlob& file : artifact.files()) {
    if (file.name() == kName) return absl::OkStatus();
  }
  LWQ_ASSIGN_OR_RETURN(const v1::Job job, client->GetJob(artifact.job()));
  LWQ_ASSIGN_OR_RETURN(const std::string job_json, ToJson(job));
  LWQ_ASSIGN_OR_RETURN(const std::string artifact_json, ToJson(artifact));
  return WriteFileAtomically(JoinPath(staging, kName),
                             absl::StrCat("{\n\"lwq_report\": 1,\n\"job\": ", job_json,
                                          ",\n\"artifact\": ", artifact_json, "\n}\n"));
}

}  // namespace lwq::client
