// What lies beside an artifact: lwq-report.json, the whole record of the job that made it, and
// README.md, a model card.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "client/client.h"

namespace lwq::client {

// Puts both into `staging`, a finished download of the artifact: the job with its plan, layer
// reports, measurements and warnings, and the artifact's files with their digests; and the same for
// people. Neither where the artifact brings its own, and nothing when the job was deleted.
absl::Status WriteReport(Client* client, const v1::Artifact& artifact, const std::string& staging);

}  // namespace lwq::client
