// What the server needs, looked at when somebody asks: for `lwqctl doctor` and its like.
#pragma once

#include <string>
#include <vector>

#include "proto/lwq/v1/admin_service.pb.h"
#include "server/service/scheduler.h"

namespace lwq {

// Store, blobs, disk and workers, each with what to do where it is not OK. Takes as long as store
// and blob store take to answer.
std::vector<v1::HealthCheck> CheckHealth(Scheduler& scheduler, const std::string& data_directory);

// The room on a disk, by how much of it is left.
v1::HealthCheck DiskCheck(const std::string& directory, double free_bytes, double total_bytes);
// `workers` as AdminService lists them, `build` the server's.
v1::HealthCheck WorkersCheck(const std::vector<v1::Worker>& workers, const std::string& build);

}  // namespace lwq
