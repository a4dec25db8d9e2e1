// How a program of your own uses an lwq server: register a model, submit a job, follow it, fetch
// the artifact. Usage: lwq-client-example ADDRESS MODEL_DIR BUDGET OUT_DIR for example:
// lwq-client-example unix:/run/lwq.sock ./llama 3.25bpw ./small
#include <iostream>
#include <string>

#include "base/failure.h"
#include "base/status_macros.h"
#include "client/budget_text.h"
#include "client/client.h"
#include "client/download.h"
#include "client/errors.h"
#include "client/progress.h"
#include "client/watch.h"

namespace lwq::client {
namespace {

// Registers the directory, which the server's workers must see under the same path, and waits until
// it has been checked.
absl::StatusOr<std::string> AddModel(Client* client, const std::string& directory) {
  v1::CreateModelRequest create;
  create.mutable_source()->set_directory(directory);
  LWQ_ASSIGN_OR_RETURN(v1::Model model, client->CreateModel(create));
  while (model.state() == v1::Model::VERIFYING) {
    v1::GetModelRequest wait;
    wait.set_name(model.name());
    wait.set_wait_seconds(20);
    LWQ_ASSIGN_OR_RETURN(model, client->GetModel(wait));
  }
  if (model.state() != v1::Model::ACTIVE) return StatusOfFailure(model.failure());
  return model.name();
}

absl::Status Quantize(Client* client, const std::string& directory, const std::string& budget,
                      const std::string& out) {
  v1::CreateJobRequest create;
  v1::QuantizeSpec* spec = create.mutable_job()->mutable_spec()->mutable_quantize();
  LWQ_ASSIGN_OR_RETURN(*spec->mutable_budget(), ParseBudget(budget));
  LWQ_ASSIGN_OR_RETURN(*spec->mutable_model(), AddModel(client, directory));
  LWQ_ASSIGN_OR_RETURN(v1::Job job, client->CreateJob(create));
  const auto print = [](const v1::JobEvent& event) {
    const std::string line = ProgressView::EventLine(event);
    if (!line.empty()) std::cout << line << std::endl;
    return absl::OkStatus();
  };
  LWQ_ASSIGN_OR_RETURN(job, WatchJob(client, job.name(), print));
  if (job.state() != v1::Job::SUCCEEDED) return StatusOfFailure(job.failure());
  LWQ_ASSIGN_OR_RETURN(const v1::Artifact artifact, client->GetArtifact(job.artifact()));
  LWQ_RETURN_IF_ERROR(DownloadArtifact(client, artifact, out + ".partial"));
  return PublishDirectory(out + ".partial", out);
}

}  // namespace
}  // namespace lwq::client

int main(int argc, char** argv) {
  if (argc != 5) {
    std::cerr << "usage: " << argv[0] << " ADDRESS MODEL_DIR BUDGET OUT_DIR\n";
    return 2;
  }
  lwq::client::ClientOptions options;
  options.address = argv[1];
  lwq::client::Client client(options);
  const absl::Status status = lwq::client::Quantize(&client, argv[2], argv[3], argv[4]);
  if (!status.ok()) std::cerr << lwq::client::ErrorText("the job did not succeed", status);
  return lwq::client::ExitCodeOf(status);
}
