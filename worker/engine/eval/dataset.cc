// See dataset.h. Prompts: notes on lm-evaluation-harness v0.4.12, tasks piqa, arc_easy, hellaswag
// and winogrande.
#include "worker/engine/eval/dataset.h"

#include <algorithm>
#include <exception>
#include <functional>
#include <stdexcept>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/choice_forms.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "worker/engine/eval/hellaswag_text.h"
#include "worker/engine/tokenizer/utf8.h"

namespace lwq {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxLineBytes = 64 << 20;
constexpr int64_t kMaxLines = 4 << 20;
constexpr size_t kMaxItems = 1 << 20;
constexpr size_t kMaxOptions = 1024;
constexpr int kMaxDepth = 16;

absl::Status BadLine(int64_t line, absl::string_view what) {
  return Failure(reasons::kDatasetInvalid, absl::StrCat("line ", line, ": ", what));
}

absl::StatusOr<Json> ParseLine(absl::string_view text, int64_t line) {
  if (text.size() > kMaxLineBytes) {
    return BadLine(line, absl::StrCat(text.size(), " bytes; at most ", kMaxLineBytes));
  }
  const auto watch = [](int depth, Json::parse_event_t, Json&) {
    if (depth > kMaxDepth) throw std::runtime_error("nested deeper than 16 levels");
    return true;
  };
  try {
    Json row = Json::parse(text.begin(), text.end(), watch);
    if (!row.is_object())
      return BadLine(line, absl::StrCat("not a JSON object but ", row.type_name()));
    return row;
  } catch (const std::exception& error) {
    return BadLine(line, absl::StrCat("not readable JSON: ", error.what()));
  }
}

// Calls `read(row, line)` for each line that is not blank until it answers false.
using ReadRow = std::function<absl::StatusOr<bool>(const Json& row, int64_t line)>;
absl::Status ForEachRow(absl::string_view bytes, const ReadRow& read) {
  absl::ConsumePrefix(&bytes, "\xEF\xBB\xBF");
  int64_t line = 0;
  while (!bytes.empty()) {
    if (++line > kMaxLines) return BadLine(line, absl::StrCat("more than ", kMaxLines, " lines"));
    const size_t end = std::min(bytes.find('\n'), bytes.size());
    const absl::string_view text = bytes.substr(0, end);
    bytes.remove_prefix(std::min(end + 1, bytes.size()));
    if (StripWhitespace(IsValidUtf8(text) ? text : "x").empty()) continue;
    LWQ_ASSIGN_OR_RETURN(const Json row, ParseLine(text, line));
    LWQ_ASSIGN_OR_RETURN(const bool go_on, read(row, line));
    if (!go_on) break;
  }
  return absl::OkStatus();
}

// One row under reading: typed members with errors that name line and key.
class Row {
 public:
  Row(const Json& json, int64_t line) : json_(json), line_(line) {}
  int64_t line() const { return line_; }
  bool Has(const char* key) const { return json_.contains(key); }

  absl::StatusOr<std::string> String(const char* key) const {
    const auto it = json_.find(key);
    if (it == json_.end() || !it->is_string()) return Wrong(key, "a string", it);
    return it->get<std::string>();
  }
  // An integer, or a string of one.
  absl::StatusOr<int> Index(const char* key) const {
    const auto it = json_.find(key);
    int value = 0;
    if (it != json_.end()) {
      if (it->is_number_unsigned() && it->get<uint64_t>() < kMaxOptions) return it->get<int>();
      if (it->is_string() && absl::SimpleAtoi(it->get<std::string>(), &value)) return value;
    }
    return Wrong(key, "an index from 0", it);
  }
  absl::StatusOr<std::vector<std::string>> Strings(const char* key) const {
    const auto it = json_.find(key);
    if (it == json_.end() || !it->is_array() || it->empty() || it->size() > kMaxOptions) {
      return Wrong(key, absl::StrCat("a list of 1 to ", kMaxOptions, " strings"), it);
    }
    std::vector<std::string> strings;
    for (const Json& value : *it) {
      if (!value.is_string()) return Wrong(key, "a list of strings", it);
      strings.push_back(value.get<std::string>());
    }
    return strings;
  }
  absl::StatusOr<Row> Object(const char* key) const {
    const auto it = json_.find(key);
    if (it == json_.end() || !it->is_object()) return Wrong(key, "an object", it);
    return Row(*it, line_);
  }

 private:
  absl::Status Wrong(const char* key, absl::string_view expected, Json::const_iterator it) const {
    return BadLine(
        line_, absl::StrCat(
                   "\"", key, "\" must be ", expected, ", ",
                   it == json_.end() ? "found nothing" : absl::StrCat("found ", it->type_name())));
  }
  const Json& json_;
  const int64_t line_;
};

MultipleChoiceItem ItemOf(const std::string& context, const std::vector<std::string>& choices,
                          int gold) {
  MultipleChoiceItem item;
  for (const std::string& choice : choices) {
    item.options.push_back({context, absl::StrCat(" ", choice), CountCodePoints(choice)});
  }
  item.gold = gold;
  return item;
}

absl::StatusOr<MultipleChoiceItem> ReadReady(const Row& row) {
  LWQ_ASSIGN_OR_RETURN(const std::string context, row.String("context"));
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> choices, row.Strings("choices"));
  LWQ_ASSIGN_OR_RETURN(const int gold, row.Index(row.Has("gold") ? "gold" : "answer"));
  return ItemOf(context, choices, gold);
}

absl::StatusOr<MultipleChoiceItem> ReadPiqa(const Row& row) {
  LWQ_ASSIGN_OR_RETURN(const std::string goal, row.String("goal"));
  LWQ_ASSIGN_OR_RETURN(std::string first, row.String("sol1"));
  LWQ_ASSIGN_OR_RETURN(std::string second, row.String("sol2"));
  int label = -1;
  if (row.Has("label")) {
    LWQ_ASSIGN_OR_RETURN(label, row.Index("label"));
  }
  return ItemOf(absl::StrCat("Question: ", goal, "\nAnswer:"),
                {std::move(first), std::move(second)}, label);
}

absl::StatusOr<MultipleChoiceItem> ReadArc(const Row& row) {
  LWQ_ASSIGN_OR_RETURN(const std::string question, row.String("question"));
  LWQ_ASSIGN_OR_RETURN(const Row choices, row.Object("choices"));
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> texts, choices.Strings("text"));
  LWQ_ASSIGN_OR_RETURN(const std::vector<std::string> labels, choices.Strings("label"));
  LWQ_ASSIGN_OR_RETURN(const std::string answer, row.String("answerKey"));
  const auto gold = std::find(labels.begin(), labels.end(), answer);
  if (gold == labels.end() || labels.size() != texts.size()) {
    return BadLine(row.line(), absl::StrCat("\"answerKey\" ", answer, " is not among the ",
                                            labels.size(), " labels of ", texts.size(), " texts"));
  }
  return ItemOf(absl::StrCat("Question: ", question, "\nAnswer:"), texts,
                static_cast<int>(gold - labels.begin()));
}

absl::StatusOr<MultipleChoiceItem> ReadHellaswag(const Row& row) {
  LWQ_ASSIGN_OR_RETURN(const std::string activity, row.String("activity_label"));
  LWQ_ASSIGN_OR_RETURN(const std::string first, row.String("ctx_a"));
  LWQ_ASSIGN_OR_RETURN(const std::string second, row.String("ctx_b"));
  LWQ_ASSIGN_OR_RETURN(std::vector<std::string> endings, row.Strings("endings"));
  LWQ_ASSIGN_OR_RETURN(const int gold, row.Index("label"));
  for (std::string& ending : endings) ending = CleanHellaswag(ending);
  return ItemOf(CleanHellaswag(absl::StrCat(activity, ": ", first, " ", Capitalize(second))),
                endings, gold);
}

// The options are the contexts here; the continuation is shared.
absl::StatusOr<MultipleChoiceItem> ReadWinogrande(const Row& row) {
  LWQ_ASSIGN_OR_RETURN(const std::string sentence, row.String("sentence"));
  LWQ_ASSIGN_OR_RETURN(const std::string answer, row.String("answer"));
  const size_t blank = sentence.find('_');
  if (blank == std::string::npos || (answer != "1" && answer != "2")) {
    return BadLine(row.line(), "\"sentence\" must have a _ and \"answer\" be \"1\" or \"2\"");
  }
  MultipleChoiceItem item;
  for (const char* key : {"option1", "option2"}) {
    LWQ_ASSIGN_OR_RETURN(const std::string option, row.String(key));
    std::string context = absl::StrCat(sentence.substr(0, blank), option);
    const int64_t length = CountCodePoints(context);
    item.options.push_back({std::move(context),
                            absl::StrCat(" ", StripWhitespace(sentence.substr(blank + 1))),
                            length});
  }
  item.gold = answer == "1" ? 0 : 1;
  return item;
}

using ReadItem = absl::StatusOr<MultipleChoiceItem> (*)(const Row& row);

// By ChoiceForms().
constexpr ReadItem kReaders[] = {ReadReady, ReadPiqa, ReadArc, ReadHellaswag, ReadWinogrande};

int IndexOfForm(const Row& row) {
  return ChoiceFormOf([&row](absl::string_view key) { return row.Has(std::string(key).c_str()); });
}

absl::Status UnknownForm(int64_t line) {
  return BadLine(
      line,
      "the keys are of no known form: {context, choices, answer}, piqa {goal, sol1, sol2, "
      "label}, arc_easy {question, choices, answerKey}, hellaswag {activity_label, ctx_a, "
      "ctx_b, endings, label}, winogrande {sentence, option1, option2, answer}");
}

absl::Status ApplyLabels(absl::string_view labels, ChoiceDataset* dataset) {
  std::vector<absl::string_view> lines = absl::StrSplit(labels, '\n');
  for (size_t i = 0; i < dataset->items.size(); ++i) {
    int label = 0;
    if (i >= lines.size() || !absl::SimpleAtoi(lines[i], &label)) {
      return Failure(reasons::kDatasetInvalid,
                     absl::StrCat("line ", i + 1, " of the labels is not a number"));
    }
    dataset->items[i].gold = label;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ForEachDocument(absl::string_view bytes, DatasetKind kind,
                             const DocumentReader& read) {
  if (kind == DatasetKind::kText) {
    absl::ConsumePrefix(&bytes, "\xEF\xBB\xBF");
    return read(bytes).status();
  }
  return ForEachRow(bytes, [&](const Json& json, int64_t line) -> absl::StatusOr<bool> {
    const Row row(json, line);
    const char* key = row.Has("text") ? "text" : row.Has("content") ? "content" : "page";
    if (!row.Has(key)) return BadLine(line, "no member \"text\", \"content\" or \"page\"");
    LWQ_ASSIGN_OR_RETURN(const std::string text, row.String(key));
    return read(text);
  });
}

absl::StatusOr<std::vector<std::string>> ReadDocuments(absl::string_view bytes, DatasetKind kind) {
  std::vector<std::string> documents;
  LWQ_RETURN_IF_ERROR(
      ForEachDocument(bytes, kind, [&](absl::string_view document) -> absl::StatusOr<bool> {
        LWQ_RETURN_IF_ERROR(CheckUtf8(document));
        documents.emplace_back(document);
        return true;
      }));
  const auto is_empty = [](const std::string& document) { return document.empty(); };
  if (std::all_of(documents.begin(), documents.end(), is_empty)) {
    return Failure(reasons::kDatasetInvalid, "the dataset has no text");
  }
  return documents;
}

absl::StatusOr<ChoiceDataset> ReadChoiceDataset(absl::string_view bytes, int64_t limit,
                                                absl::string_view labels) {
  ChoiceDataset dataset;
  int form = -1;
  LWQ_RETURN_IF_ERROR(
      ForEachRow(bytes, [&](const Json& json, int64_t line) -> absl::StatusOr<bool> {
        const Row row(json, line);
        if (form < 0) {
          form = IndexOfForm(row);
          if (form < 0) return UnknownForm(line);
          dataset.form = std::string(ChoiceForms()[static_cast<size_t>(form)].name);
        }
        if (dataset.items.size() >= kMaxItems) {
          return BadLine(line, absl::StrCat("more than ", kMaxItems, " items"));
        }
        LWQ_ASSIGN_OR_RETURN(MultipleChoiceItem item, kReaders[form](row));
        if (labels.empty() && item.gold < 0) {
          return BadLine(line, "no \"label\", and no file of labels was given");
        }
        dataset.items.push_back(std::move(item));
        return limit <= 0 || static_cast<int64_t>(dataset.items.size()) < limit;
      }));
  if (dataset.items.empty()) return Failure(reasons::kDatasetInvalid, "the dataset has no items");
  if (!labels.empty()) LWQ_RETURN_IF_ERROR(ApplyLabels(labels, &dataset));
  return dataset;
}

bool HasChoiceForm(absl::string_view bytes) {
  bool has = false;
  ForEachRow(bytes, [&has](const Json& json, int64_t line) -> absl::StatusOr<bool> {
    has = IndexOfForm(Row(json, line)) >= 0;
    return false;
  }).IgnoreError();
  return has;
}

}  // namespace lwq
