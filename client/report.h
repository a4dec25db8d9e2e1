// lwq-report.json: the whole record of the job that made an artifact, beside it.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "client/client.h"

namespace lwq::client {

// Puts lwq-report.json into `staging`, a finished download of the artifact: the job with its plan,
// layer reports, measurements and warnings, and the artifact's files with their digests. Nothing
// when the artifact brings a report of its own.
absl::Status WriteReport(Client* client, const v1::Artifact& artifact, const std::string& staging);

}  // namespace lwq::client
