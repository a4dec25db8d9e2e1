#include "client/results.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "client/budget_text.h"
#include "client/download.h"
#include "client/size_text.h"
#include "client/table.h"
#include "google/protobuf/util/json_util.h"

namespace lwq::client {
namespace {

double SecondsBetween(const google::protobuf::Timestamp& from,
                      const google::protobuf::Timestamp& to) {
  return static_cast<double>(to.seconds() - from.seconds()) +
         1e-9 * static_cast<double>(to.nanos() - from.nanos());
}

std::string NameOf(const std::string& dataset, const std::map<std::string, std::string>& names) {
  const auto found = names.find(dataset);
  return found == names.end() ? dataset : found->second;
}

std::string BytesBoth(int64_t bytes) {
  return absl::StrCat(FormatBytes(bytes), " (", FormatCount(bytes), " bytes)");
}

// Rows of one dataset: measure -> subject -> text.
struct Measures {
  std::vector<std::string> order;
  std::map<std::string, std::map<std::string, std::string>> cells;

  void Set(const std::string& measure, const std::string& subject, std::string value) {
    if (cells.count(measure) == 0) order.push_back(measure);
    cells[measure][subject] = std::move(value);
  }
};

void AddText(const std::string& name, const v1::EvaluationResult& result, Measures* measures) {
  const v1::TextResult& text = result.text();
  const std::string& who = result.subject();
  measures->Set(absl::StrCat("perplexity per token, ", name), who,
                absl::StrFormat("%.4f", text.token_perplexity()));
  measures->Set(absl::StrCat("perplexity per word, ", name), who,
                absl::StrFormat("%.4f", text.word_perplexity()));
  if (!text.has_kl()) return;
  const v1::KlResult& kl = text.kl();
  measures->Set(absl::StrCat("KL to the source: mean, ", name), who,
                absl::StrFormat("%.5f", kl.mean()));
  measures->Set("  median", who, absl::StrFormat("%.5f", kl.median()));
  measures->Set("  99th percentile", who, absl::StrFormat("%.4f", kl.p99()));
  measures->Set("  same first choice", who, FormatShare(kl.top1_agreement(), 1));
}

void AddChoice(const std::string& name, const v1::EvaluationResult& result, Measures* measures) {
  const v1::ChoiceResult& choice = result.choice();
  const std::string items = absl::StrCat(name, " (", choice.num_items(), " items)");
  measures->Set(absl::StrCat("accuracy, ", items), result.subject(), FormatShare(choice.acc(), 1));
  measures->Set(absl::StrCat("accuracy by length, ", items), result.subject(),
                FormatShare(choice.acc_norm(), 1));
}

google::protobuf::Value Number(double value) {
  google::protobuf::Value result;
  result.set_number_value(value);
  return result;
}
google::protobuf::Value Text(const std::string& value) {
  google::protobuf::Value result;
  result.set_string_value(value);
  return result;
}

absl::Status FromProtobuf(const google::protobuf::util::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("making JSON: ", std::string(status.message())));
}

}  // namespace

std::string FormatText(const v1::UnitChoice& unit) {
  return unit.format().empty() ? "left out" : unit.format();
}

std::string FormatsText(const v1::PlanSummary& plan) {
  std::map<std::string, int> units;
  for (const v1::UnitChoice& unit : plan.units()) ++units[FormatText(unit)];
  std::vector<std::string> parts;
  for (const auto& [format, count] : units) {
    parts.push_back(absl::StrCat(format, ": ", count, count == 1 ? " unit" : " units"));
  }
  return absl::StrJoin(parts, ", ");
}

std::string ComparisonText(const v1::PlanComparison& comparison) {
  std::string text =
      absl::StrFormat("%s: KL %.5f there, here %+.5f", LogSafe(comparison.baseline()),
                      comparison.baseline_kl(), comparison.difference());
  if (comparison.has_standard_error()) {
    absl::StrAppendFormat(&text, " (standard error %.5f)", comparison.standard_error());
  }
  return text;
}

std::string EvaluationTable(const v1::Job& job, const std::map<std::string, std::string>& names) {
  Measures measures;
  std::vector<std::string> subjects;
  for (const v1::EvaluationResult& result : job.evaluations()) {
    if (std::find(subjects.begin(), subjects.end(), result.subject()) == subjects.end()) {
      subjects.push_back(result.subject());
    }
    if (result.has_text()) AddText(NameOf(result.dataset(), names), result, &measures);
  }
  for (const v1::EvaluationResult& result : job.evaluations()) {
    if (result.has_choice()) AddChoice(NameOf(result.dataset(), names), result, &measures);
  }
  if (measures.order.empty()) return "";
  // "source" comes before what is measured against it.
  std::sort(subjects.rbegin(), subjects.rend());
  std::vector<std::string> headings = {"measure"};
  for (const std::string& subject : subjects) headings.push_back(absl::StrCat(">", subject));
  Table table(headings);
  for (const std::string& measure : measures.order) {
    std::vector<std::string> row = {measure};
    for (const std::string& subject : subjects) {
      const auto found = measures.cells[measure].find(subject);
      row.push_back(found == measures.cells[measure].end() ? "-" : found->second);
    }
    table.AddRow(std::move(row));
  }
  return table.Text();
}

std::string QuantizeTable(const QuantizeOutcome& outcome) {
  const v1::Job& job = outcome.job;
  const v1::PlanSummary& plan = job.plan();
  Table table({"", ""});
  table.AddRow({"source weights", BytesBoth(plan.source_bytes())});
  table.AddRow({"budget", FormatBudget(job.spec().quantize().budget())});
  table.AddRow(
      {"artifact weights", absl::StrCat(BytesBoth(plan.weight_file_bytes()), ", ",
                                        FormatShare(static_cast<double>(plan.weight_file_bytes()),
                                                    static_cast<double>(plan.source_bytes())),
                                        " of the source, ",
                                        FormatShare(static_cast<double>(plan.plan_bytes()),
                                                    static_cast<double>(plan.budget_bytes())),
                                        " of the budget")});
  table.AddRow({"bits per weight", absl::StrFormat("%.3f", plan.bits_per_weight())});
  table.AddRow({"formats", FormatsText(plan)});
  if (!plan.explanation().empty()) table.AddRow({"chosen", LogSafe(plan.explanation())});
  for (const v1::PlanComparison& comparison : plan.comparisons()) {
    table.AddRow({"beside", ComparisonText(comparison)});
  }
  const v1::Progress& progress = job.progress();
  table.AddRow(
      {"time", absl::StrCat(FormatSeconds(outcome.seconds), " (job ",
                            FormatSeconds(SecondsBetween(job.start_time(), job.end_time())), "), ",
                            progress.tasks_cached(), " of ", progress.tasks_total(),
                            " tasks from the cache")});
  std::string text = absl::StrCat("\n", table.Text());
  const std::string evaluation = EvaluationTable(job, outcome.names);
  if (!evaluation.empty()) absl::StrAppend(&text, "\n", evaluation);
  for (const std::string& warning : job.warnings()) {
    absl::StrAppend(&text, "\nwarning: ", warning, "\n");
  }
  absl::StrAppend(&text, "\nartifact  ", outcome.directory, "\nreport    ",
                  ProofPath(outcome.directory, "lwq-report.json"), "\nmanifest  ",
                  ProofPath(outcome.directory, "lwq-manifest.json"), "\n");
  return text;
}

absl::StatusOr<std::string> ToJson(const google::protobuf::Message& message, bool indented) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = indented;
  options.preserve_proto_field_names = true;
  // Zeros too: layer 0 has its `layer`.
  options.always_print_primitive_fields = true;
  std::string json;
  const absl::Status status =
      FromProtobuf(google::protobuf::util::MessageToJsonString(message, &json, options));
  if (!status.ok()) return status;
  while (!json.empty() && json.back() == '\n') json.pop_back();
  return json;
}

absl::StatusOr<std::string> QuantizeJson(const QuantizeOutcome& outcome) {
  const v1::PlanSummary& plan = outcome.job.plan();
  google::protobuf::Struct object;
  auto& fields = *object.mutable_fields();
  fields["directory"] = Text(outcome.directory);
  fields["source_bytes"] = Number(static_cast<double>(plan.source_bytes()));
  fields["budget_bytes"] = Number(static_cast<double>(plan.budget_bytes()));
  fields["plan_bytes"] = Number(static_cast<double>(plan.plan_bytes()));
  fields["weight_file_bytes"] = Number(static_cast<double>(plan.weight_file_bytes()));
  fields["total_bytes"] = Number(static_cast<double>(outcome.artifact.total_bytes()));
  fields["bits_per_weight"] = Number(plan.bits_per_weight());
  fields["seconds"] = Number(outcome.seconds);
  fields["tasks_total"] = Number(outcome.job.progress().tasks_total());
  fields["tasks_cached"] = Number(outcome.job.progress().tasks_cached());
  auto* formats = fields["formats"].mutable_struct_value()->mutable_fields();
  for (const v1::UnitChoice& unit : plan.units()) {
    google::protobuf::Value& count = (*formats)[FormatText(unit)];
    count.set_number_value(count.number_value() + 1);
  }
  auto* datasets = fields["datasets"].mutable_struct_value()->mutable_fields();
  for (const auto& [dataset, file] : outcome.names) (*datasets)[dataset] = Text(file);
  const absl::StatusOr<std::string> job = ToJson(outcome.job, false);
  if (!job.ok()) return job.status();
  const absl::Status parsed = FromProtobuf(
      google::protobuf::util::JsonStringToMessage(*job, fields["job"].mutable_struct_value()));
  if (!parsed.ok()) return parsed;
  return ToJson(object);
}

}  // namespace lwq::client
