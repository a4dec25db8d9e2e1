// What a specification means where it says nothing. Pure.
#pragma once

#include "proto/lwq/v1/job.pb.h"
#include "proto/lwq/v1/model.pb.h"

namespace lwq {

// Fills in what the caller left out, by the rules of job.proto.
void FillDefaults(const v1::ModelManifest& manifest, v1::QuantizeSpec& spec);
void FillDefaults(v1::Evaluation& evaluation);

}  // namespace lwq
