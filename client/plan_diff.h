// How two artifacts differ: sizes, quality, and the format of every unit. Pure.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "proto/lwq/v1/job.pb.h"

namespace lwq::client {

// An artifact and the job that made it.
struct DiffSide {
  v1::Artifact artifact;
  v1::Job job;
};

// A table of what the two have, then the units whose formats differ.
std::string DiffText(const DiffSide& a, const DiffSide& b);
// The same as one JSON object.
std::string DiffJson(const DiffSide& a, const DiffSide& b);

}  // namespace lwq::client
