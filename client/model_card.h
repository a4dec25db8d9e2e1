// README.md of an artifact: a model card, Markdown with the front matter that model hubs read. The
// Python client writes the same text.
#pragma once

#include <map>
#include <string>

#include "proto/lwq/v1/job.pb.h"

namespace lwq::client {

// `titles`: what people call the model and the datasets, by name; without one the name stands.
std::string ModelCard(const v1::Job& job, const v1::Artifact& artifact,
                      const std::map<std::string, std::string>& titles);

}  // namespace lwq::client
