// Datasets from bytes that users send: text or JSON lines for perplexity and calibration, JSON
// lines of multiple-choice items for accuracy.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lwq {

enum class DatasetKind { kText, kJsonLines };

// Calls `read` with each document until it answers false, so that of a large dataset only what is
// needed is looked at: all of a text as one document, or the "text" (else "content", "page") member
// of each line. INVALID_ARGUMENT "DATASET_INVALID" with the line's number; a line has at most 64
// MiB, a dataset at most 4 M lines. Blank lines are passed over. A UTF-8 byte order mark is
// dropped. Whether a text is UTF-8 is for its reader to say.
using DocumentReader = std::function<absl::StatusOr<bool>(absl::string_view document)>;
absl::Status ForEachDocument(absl::string_view bytes, DatasetKind kind, const DocumentReader& read);

// All of them, checked: "DATASET_INVALID" too where none has any text.
absl::StatusOr<std::vector<std::string>> ReadDocuments(absl::string_view bytes, DatasetKind kind);

// One way to go on, as lm-evaluation-harness asks for it.
struct ChoiceOption {
  std::string context;
  std::string continuation;  // with the delimiter in front
  int64_t norm_length = 0;   // code points that acc_norm divides by
};

struct MultipleChoiceItem {
  std::vector<ChoiceOption> options;
  int gold = -1;  // outside the options: no answer is right
};

struct ChoiceDataset {
  std::string form;  // ready | piqa | arc_easy | hellaswag | winogrande
  std::vector<MultipleChoiceItem> items;
};

// Reads JSON lines; the form is told from the keys of the first line and all lines must have it:
//   ready       context, choices, answer or gold (an index)
//   piqa        goal, sol1, sol2, label (or line n of `labels`)
//   arc_easy    question, choices {text, label}, answerKey
//   hellaswag   activity_label, ctx_a, ctx_b, endings, label
//   winogrande  sentence, option1, option2, answer
// Prompts are those of lm-evaluation-harness without examples. `limit` > 0 takes the first items.
// "DATASET_INVALID" names line and key; at most 1 M items of 1,024 options.
// The labels are needed where the rows have none.
absl::StatusOr<ChoiceDataset> ReadChoiceDataset(absl::string_view bytes, int64_t limit,
                                                absl::string_view labels = "");

// Whether the first row has the keys of such a form, and so is none of a text's; what else is wrong
// with it is for ReadChoiceDataset to say.
bool HasChoiceForm(absl::string_view bytes);

}  // namespace lwq
