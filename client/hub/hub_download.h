// A model from an endpoint that speaks the Hub's API, as a directory on this machine: only what lwq
// reads, every file checked against what the endpoint lists, resumable, kept for the next time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/hub/hub_name.h"

namespace lwq::client {

struct HubOptions {
  std::string endpoint;  // "https://huggingface.co"
  std::string token;     // empty: none
  std::string folder;    // models are kept below it
  int tries = 4;         // of each transfer, with longer and longer waits between
  std::function<absl::Status()> may_go_on;
  // Of all files together; may be null.
  std::function<void(int64_t done, int64_t total)> progress;
  // Hears what a person should know; may be null.
  std::function<void(const std::string&)> note;
};

// $HF_ENDPOINT or the public hub, $HF_TOKEN, and `folder`.
HubOptions HubOptionsFromEnvironment(const std::string& folder);

struct HubFile {
  std::string name;
  int64_t size_bytes = 0;
  std::string sha256;    // of large files
  std::string git_hash;  // of the others
};
struct HubListing {
  std::string commit;
  std::vector<HubFile> files;  // those that lwq reads, sorted by name
};

// What the endpoint answers about a model, as this program needs it. HUB_INVALID names what is
// missing or not as expected: no commit, a size below zero, a name that is a path.
// WEIGHTS_MISSING where there are no safetensors.
absl::StatusOr<HubListing> ParseHubListing(const HubName& name, const std::string& json);

// The directory that holds the model, all of it checked. Errors besides those of http_get.h:
// STORAGE_FULL before anything is written where the disk has too little room, DIGEST_MISMATCH.
// Where the endpoint cannot be reached, a model that is there whole is used, and `note` hears of
// it.
absl::StatusOr<std::string> DownloadModel(const HubName& name, const HubOptions& options);

}  // namespace lwq::client
