// The picture that `lwqctl top` shows: workers and jobs as they are now. Pure.
#pragma once

#include <string>
#include <vector>

#include "proto/lwq/v1/admin_service.pb.h"
#include "proto/lwq/v1/job.pb.h"

namespace lwq::client {

// One line about all, then the workers with what each does, then the active jobs; at most `height`
// lines of at most `width` columns, 0: as many as there are.
std::vector<std::string> TopLines(const std::vector<v1::Worker>& workers,
                                  const std::vector<v1::Job>& jobs, size_t width, size_t height);

}  // namespace lwq::client
