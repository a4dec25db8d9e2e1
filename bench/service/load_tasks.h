// What simulated workers and clients say: a model of a few layers, jobs that share nothing, results
// that are made up and name one blob.
#pragma once

#include <string>

#include "proto/lwq/v1/blob.pb.h"
#include "proto/lwq/v1/job_service.pb.h"
#include "proto/lwq/v1/worker_service.pb.h"

namespace lwq::bench {

v1::RegisterWorkerRequest RegistrationOf(const std::string& id, const std::string& incarnation);
// A job of some two tasks a layer; the number makes its calibration, and so its tasks, its own.
v1::CreateJobRequest JobRequest(int number);
v1::TaskOutput OutputOf(const v1::Lease& lease, const std::string& directory, int num_layers,
                        const v1::BlobRef& blob);

}  // namespace lwq::bench
