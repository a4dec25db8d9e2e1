// What came of a job, for people and as JSON.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "google/protobuf/struct.pb.h"
#include "proto/lwq/v1/job.pb.h"

namespace lwq::client {

struct QuantizeOutcome {
  v1::Job job;
  v1::Artifact artifact;
  std::string directory;                     // where the artifact lies now
  std::map<std::string, std::string> names;  // file name of a dataset
  double seconds = 0;                        // of the whole command
};

// Sizes, widths, measurements of source and artifact, time and cached share.
std::string QuantizeTable(const QuantizeOutcome& outcome);
// The same and the whole job, in one object.
absl::StatusOr<std::string> QuantizeJson(const QuantizeOutcome& outcome);

// "2 bits: 12 units, 4 bits: 20 units".
std::string FormatsText(const v1::PlanSummary& plan);
// The unit's format; "left out" where its layer is.
std::string FormatText(const v1::UnitChoice& unit);
// "uniform: KL 0.01870 there, here -0.00310 (standard error 0.00020)".
std::string ComparisonText(const v1::PlanComparison& comparison);

// One row a measure, one column a subject ("source", "artifact", "model").
std::string EvaluationTable(const v1::Job& job, const std::map<std::string, std::string>& names);

// Any message as JSON with its proto names kept, one line or indented.
absl::StatusOr<std::string> ToJson(const google::protobuf::Message& message, bool indented = true);

}  // namespace lwq::client
