// What plans need computed: units of the model in weight formats.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "proto/lwq/v1/job.pb.h"
#include "proto/lwq/v1/record.pb.h"
#include "proto/lwq/v1/task.pb.h"

namespace lwq {

// Units of one layer with the formats to make them in.
using Products = std::vector<v1::UnitFormats>;

// Whether a plan has something to compute for this unit.
bool IsQuantized(const v1::UnitChoice& unit);

// By layer, what some of `plans` use: units in the order of the plans, formats in order of id.
std::map<int, Products> ProductsByLayer(const std::vector<v1::PlanSummary>& plans);

// What of a plan decides the weights, and not why it was chosen.
v1::PlanSummary FormatsOf(const v1::PlanSummary& plan);

// The cache keys of the products that `plan` uses, of the quantize tasks of each layer.
std::vector<std::string> ProductKeysOf(const v1::PlanSummary& plan,
                                       const std::map<int, v1::TaskRecord>& quantized);

}  // namespace lwq
