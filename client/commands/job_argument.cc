#include "client/commands/job_argument.h"

#include <algorithm>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/all_pages.h"
#include "client/commands/output.h"

namespace lwq::client {
namespace {

constexpr int kPageSize = 1000;
constexpr size_t kMostNamed = 5;

}  // namespace

absl::StatusOr<std::string> JobArgument(Client* client, const std::string& argument) {
  const std::string name = FullName("jobs", argument);
  const absl::Status there = client->GetJob(name).status();
  // "j-", which no job can be called, may begin a name.
  if (!absl::IsNotFound(there) && !absl::IsInvalidArgument(there)) return name;
  std::vector<std::string> found;
  v1::ListJobsRequest request;
  request.set_page_size(kPageSize);
  LWQ_RETURN_IF_ERROR(
      EachPage(client, &Client::ListJobs, request, [&](const v1::ListJobsResponse& page) {
        for (const v1::Job& job : page.jobs()) {
          if (absl::StartsWith(job.name(), name)) found.push_back(job.name());
        }
      }));
  if (found.size() == 1) return found.front();
  if (found.empty()) return name;
  const size_t named = std::min(found.size(), kMostNamed);
  return Failure(
      reasons::kNotFound,
      absl::StrCat(found.size(), " jobs have names that begin with ", LogSafe(argument), ": ",
                   LogSafe(absl::StrJoin(found.begin(), found.begin() + named, ", ")),
                   found.size() > named ? ", ..." : ""));
}

}  // namespace lwq::client
