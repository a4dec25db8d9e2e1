#include "client/model_card.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/log.h"
#include "client/budget_text.h"
#include "client/size_text.h"

namespace lwq::client {
namespace {

// On one line, and without what could move a cursor.
std::string Line(absl::string_view text) {
  return LogSafe(
      absl::StrJoin(absl::StrSplit(text, absl::ByAnyChar(" \t\n\r\f\v"), absl::SkipEmpty()), " "));
}

std::string Title(const std::string& name, absl::string_view collection,
                  const std::map<std::string, std::string>& titles) {
  const auto found = titles.find(name);
  return Line(found != titles.end() ? absl::string_view(found->second)
                                    : absl::StripPrefix(name, collection));
}

using Row = std::pair<std::string, std::map<std::string, std::string>>;  // measure, by subject

void Set(std::vector<Row>& rows, const std::string& measure, const std::string& subject,
         std::string text) {
  auto row =
      std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.first == measure; });
  if (row == rows.end()) row = rows.insert(rows.end(), {measure, {}});
  row->second[subject] = std::move(text);
}

std::string Percent(double share) { return absl::StrFormat("%.1f%%", 100 * share); }

void AddResult(const v1::EvaluationResult& result, const std::string& name,
               std::vector<Row>& rows) {
  const std::string& who = result.subject();
  if (result.has_choice()) {
    const std::string items = absl::StrCat(" (", result.choice().num_items(), " items)");
    return Set(rows, absl::StrCat("accuracy, ", name, items), who, Percent(result.choice().acc()));
  }
  const v1::TextResult& text = result.text();
  Set(rows, absl::StrCat("perplexity per token, ", name), who,
      absl::StrFormat("%.4f", text.token_perplexity()));
  Set(rows, absl::StrCat("perplexity per word, ", name), who,
      absl::StrFormat("%.4f", text.word_perplexity()));
  if (!text.has_kl()) return;
  const std::string kl = absl::StrCat("KL to the source, ", name, ": ");
  Set(rows, absl::StrCat(kl, "mean"), who, absl::StrFormat("%.5f", text.kl().mean()));
  Set(rows, absl::StrCat(kl, "99th percentile"), who, absl::StrFormat("%.4f", text.kl().p99()));
  Set(rows, absl::StrCat("same first choice, ", name), who, Percent(text.kl().top1_agreement()));
}

std::string MeasuresText(const v1::Job& job, const std::map<std::string, std::string>& titles) {
  std::vector<Row> rows;
  std::set<std::string, std::greater<>> subjects;  // the source first
  for (const v1::EvaluationResult& result : job.evaluations()) {
    AddResult(result, Title(result.dataset(), "datasets/", titles), rows);
    subjects.insert(result.subject());
  }
  if (rows.empty()) return "";
  std::string text = absl::StrCat("\n| measure | ", absl::StrJoin(subjects, " | "), " |\n| --- |");
  for (size_t i = 0; i < subjects.size(); ++i) absl::StrAppend(&text, " --- |");
  for (const auto& [measure, cells] : rows) {
    absl::StrAppend(&text, "\n| ", measure, " |");
    for (const std::string& subject : subjects) {
      const auto cell = cells.find(subject);
      absl::StrAppend(&text, " ", cell == cells.end() ? "-" : cell->second, " |");
    }
  }
  return absl::StrCat(text, "\n");
}

std::string FormatsTable(const v1::PlanSummary& plan) {
  std::map<std::string, int> units;
  for (const v1::UnitChoice& unit : plan.units()) {
    ++units[unit.format().empty() ? "dropped" : unit.format()];
  }
  std::string text = "| weights | units |\n| --- | --- |\n";
  for (const auto& [format, count] : units) {
    absl::StrAppend(&text, "| ", format, " | ", count, " |\n");
  }
  return text;
}

std::string RecipeText(const v1::QuantizeSpec& spec) {
  std::vector<std::string> parts;
  for (const auto& [what, value] : {std::pair{"method", spec.method()},
                                    {"scorer", spec.scorer()},
                                    {"allocator", spec.allocator()},
                                    {"profile", spec.profile()}}) {
    if (!value.empty()) parts.push_back(absl::StrCat(what, " ", value));
  }
  return absl::StrJoin(parts, ", ");
}

}  // namespace

std::string ModelCard(const v1::Job& job, const v1::Artifact& artifact,
                      const std::map<std::string, std::string>& titles) {
  const v1::PlanSummary& plan = job.plan();
  const v1::QuantizeSpec& spec = job.spec().quantize();
  const std::string model = Title(spec.model(), "models/", titles);
  const std::string bytes = FormatCount(plan.weight_file_bytes());
  std::string card = absl::StrCat(
      "---\ntags: [lwq, quantized, ",
      plan.artifact_format().empty() ? "compressed-tensors" : plan.artifact_format(), "]\n---\n\n",
      "# ", model, " at ", absl::StrFormat("%.3f", plan.bits_per_weight()),
      " bits per weight\n\nMade by lwq from ", model,
      absl::EndsWithIgnoreCase(model, ".gguf") ? " (a GGUF file, as it stands)" : "",
      " within a budget of ", FormatBudget(spec.budget()), ": ", bytes, " bytes of weights");
  if (plan.source_bytes() > 0) {
    const double share = static_cast<double>(plan.weight_file_bytes()) / plan.source_bytes();
    absl::StrAppend(&card, ", ", Percent(share), " of the source's");
  }
  absl::StrAppend(&card, ".\n\n", FormatsTable(plan));
  if (!plan.explanation().empty()) {
    absl::StrAppend(&card, "\nHow the formats were chosen: ", Line(plan.explanation()), "\n");
  }
  absl::StrAppend(&card, MeasuresText(job, titles));
  for (const std::string& warning : job.warnings()) {
    absl::StrAppend(&card, "\nWarning: ", Line(warning), "\n");
  }
  absl::StrAppend(&card, "\nHow it was made: ", RecipeText(spec), "; job `", job.name(),
                  "`. `lwq-report.json` holds the whole record, `lwq-manifest.json` the SHA-256 of "
                  "each file.\n\n| file | bytes | SHA-256 |\n| --- | --- | --- |\n");
  for (const v1::NamedBlob& file : artifact.files()) {
    absl::StrAppend(&card, "| ", LogSafe(file.name()), " | ", FormatCount(file.blob().size_bytes()),
                    " | `", file.blob().sha256(), "` |\n");
  }
  return card;
}

}  // namespace lwq::client
