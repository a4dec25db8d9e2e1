// The files of a model directory that an artifact carries along as they are: tokenizer, generation
// settings, chat template, licence.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq {

// Whether a file of this name is one. Never weights, code, pickles, hidden files or anything
// unknown.
bool IsCompanionFile(absl::string_view name);

// Of a GGUF file those that its keys make (io/model_files.h). Otherwise those of `directory` that are regular files, sorted: what is hashed when a model is registered and
// what is copied into its artifacts. Whoever downloads an artifact reads them, so a link may not lead
// to any file that the worker can read: only to one of the model directory itself or, where it is
// a snapshot of Hugging Face's cache, of that model's "blobs" folder. INVALID_ARGUMENT
// "LINK_OUTSIDE_MODEL" names one that leads elsewhere, or nowhere.
absl::StatusOr<std::vector<std::string>> ListCompanionFiles(const std::string& directory);

}  // namespace lwq
