// The flags that describe a quantize job, shared by quantize, submit and plan.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/client.h"
#include "client/flags.h"

namespace lwq::client {

absl::Span<const FlagDef> SpecFlags();

// Everything of the spec that needs no server: all fields but the model and the datasets. Errors
// name the flag. Names of methods, scorers and allocators are left to the server, which knows its
// workers'.
absl::StatusOr<v1::QuantizeSpec> SpecFromFlags(const Flags& flags);

// Whether the job's artifact is one file.
bool IsForFiles(const v1::QuantizeSpec& spec);

// Checks that the files of --calibration, --eval-text and --eval-tasks are there, then uploads them
// and names them in the spec. `names` gets the file name of each dataset.
absl::Status CheckDatasetFiles(const Flags& flags);
absl::Status UploadDatasets(Client* client, const Flags& flags, v1::QuantizeSpec* spec,
                            std::map<std::string, std::string>* names);

}  // namespace lwq::client
