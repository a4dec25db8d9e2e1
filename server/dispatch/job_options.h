// What the method and the scorer of a job are set to: every option that they declare, and no other,
// in the text that enters keys.
#pragma once

#include "absl/status/status.h"
#include "proto/lwq/v1/job.pb.h"
#include "proto/lwq/v1/worker_service.pb.h"

namespace lwq {

// Fills method_options and scorer_options of `spec`: what is given there, what the older fields say
// (damping, no_act_order, no_scale_search, no_refinement, seed), and the defaults. INVALID_ARGUMENT
// "FIELD_INVALID" for an option that is not declared, a value it cannot have, or two that differ.
// `strict` false, for specifications that were accepted before: an older field whose option is not
// declared says nothing.
absl::Status FillOptions(const v1::Capability& method, const v1::Capability& scorer, bool strict,
                         v1::QuantizeSpec& spec);

// Whether the method refines what it made: its option, or the older field where the options are not
// filled in. True of a method that has no such option.
bool Refines(const v1::QuantizeSpec& spec);

}  // namespace lwq
