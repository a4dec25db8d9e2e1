// Local files as datasets of the server.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/client.h"

namespace lwq::client {

// Sends the file's bytes to the blob store unless they are there; goes on where an interrupted
// upload stopped. NOT_FOUND for no such file; INVALID_ARGUMENT DATASET_INVALID for an empty one or
// a directory; ABORTED FILE_CHANGED when the file changes while it is sent.
absl::StatusOr<v1::BlobRef> UploadFile(Client* client, const std::string& path);

// The same, and registers it: JSON lines when its name ends in ".jsonl" or ".json", else text. The
// same content gives the same dataset.
absl::StatusOr<v1::Dataset> UploadDataset(Client* client, const std::string& path,
                                          const std::string& dataset_id = "");

// Whether the file's first row is an item of multiple choice, in one of the forms that are read.
bool HasChoices(const std::string& path);

}  // namespace lwq::client
