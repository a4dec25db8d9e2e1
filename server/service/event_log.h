// The server's log of jobs: one line for each event that a watcher would see, so that a job can be
// followed through the log from submission to artifact, beside the lines of its workers.
#pragma once

#include <string>

#include "proto/lwq/v1/event.pb.h"

namespace lwq {

// "job=j-1 task=3f2a90c1d4e5 kind=quantize layer=3 done worker=w1 seconds=3.20"; "job=j-1 QUEUED ->
// RUNNING". Empty for events that are no news.
std::string EventLogLine(const std::string& job, const v1::JobEvent& event);

void LogEvent(const std::string& job, const v1::JobEvent& event);

}  // namespace lwq
