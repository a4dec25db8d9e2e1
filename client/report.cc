#include "client/report.h"

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "client/all_pages.h"
#include "client/model_card.h"
#include "client/results.h"

namespace lwq::client {
namespace {

constexpr char kReport[] = "lwq-report.json";
constexpr char kCard[] = "README.md";

bool Brings(const v1::Artifact& artifact, absl::string_view name) {
  for (const v1::NamedBlob& file : artifact.files()) {
    if (file.name() == name) return true;
  }
  return false;
}

// What people call the job's model and datasets; what the server does not say is left out.
std::map<std::string, std::string> TitlesOf(Client* client, const v1::Job& job) {
  std::map<std::string, std::string> titles;
  v1::GetModelRequest ask;
  ask.set_name(job.spec().quantize().model());
  if (const absl::StatusOr<v1::Model> model = client->GetModel(ask); model.ok()) {
    titles[model->name()] = Basename(model->source().directory());
  }
  const absl::StatusOr<v1::ListDatasetsResponse> all =
      AllPages(client, &Client::ListDatasets, v1::ListDatasetsRequest());
  if (!all.ok()) return titles;
  for (const v1::Dataset& dataset : all->datasets()) {
    if (!dataset.display_name().empty()) titles[dataset.name()] = dataset.display_name();
  }
  return titles;
}

}  // namespace

absl::Status WriteReport(Client* client, const v1::Artifact& artifact, const std::string& staging) {
  const absl::StatusOr<v1::Job> job = client->GetJob(artifact.job());
  if (absl::IsNotFound(job.status())) return absl::OkStatus();  // deleted; its artifact stayed
  LWQ_RETURN_IF_ERROR(job.status());
  if (!Brings(artifact, kReport)) {
    LWQ_ASSIGN_OR_RETURN(const std::string job_json, ToJson(*job));
    LWQ_ASSIGN_OR_RETURN(const std::string artifact_json, ToJson(artifact));
    LWQ_RETURN_IF_ERROR(WriteFileAtomically(
        JoinPath(staging, kReport), absl::StrCat("{\n\"lwq_report\": 1,\n\"job\": ", job_json,
                                                 ",\n\"artifact\": ", artifact_json, "\n}\n")));
  }
  if (Brings(artifact, kCard)) return absl::OkStatus();
  return WriteFileAtomically(JoinPath(staging, kCard),
                             ModelCard(*job, artifact, TitlesOf(client, *job)));
}

}  // namespace lwq::client
