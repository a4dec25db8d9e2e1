// From a model directory and a spec to a finished job, in a way that the same command can be given
// again after any crash.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "client/following.h"
#include "client/job_display.h"
#include "client/session.h"

namespace lwq::client {

// Registers the directory (made absolute) and waits until a worker has verified it; `note` hears
// where there is none to do so. A rejected model gives its failure as an error.
absl::StatusOr<v1::Model> RegisterModel(Session* session, const std::string& directory,
                                        const std::function<void(const std::string&)>& note,
                                        const std::string& model_id = "");

// Label that holds the digest of what was asked.
inline constexpr char kRequestLabel[] = "lwq-request";

// SHA-256 over the canonical bytes of the spec and the digest of what it reads.
std::string RequestDigest(const v1::JobSpec& spec, const std::string& model_digest);

// The running or succeeded job with this digest as its label and the same spec, or a new one.
absl::StatusOr<v1::Job> FindOrSubmit(Client* client, const v1::JobSpec& spec,
                                     const std::string& digest, bool reuse);

// Cancels jobs that a command which is gone left running on the own server; what they finished
// stays in the cache. Jobs with `digest` are spared, and those that a command waits for.
void CancelLeftovers(Client* client, const std::string& run_directory, const std::string& digest);

// Shows the job until it is terminal. When the user presses Ctrl-C and the pair is this command's
// own, the job is cancelled (its finished work is kept) before the error is returned. A job that
// other commands can find is cancelled by the last of those that follow it; `following` is null for
// one that they cannot.
absl::StatusOr<v1::Job> FollowJob(Session* session, const std::string& name, JobDisplay* display,
                                  Following* following = nullptr);

// Prints a job that did not succeed in three lines; returns exit code 1.
int ReportFailedJob(const v1::Job& job, std::ostream* err);

}  // namespace lwq::client
