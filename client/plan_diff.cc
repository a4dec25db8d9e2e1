#include "client/plan_diff.h"

#include <map>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/log.h"
#include "client/budget_text.h"
#include "client/size_text.h"
#include "client/table.h"
#include "nlohmann/json.hpp"

namespace lwq::client {
namespace {

using Json = nlohmann::ordered_json;

std::string ShortId(const std::string& name) { return LogSafe(name.substr(name.rfind('/') + 1)); }

// A unit whose format is not the same on both sides; "-" where one does not have the unit.
struct Change {
  std::string unit;
  std::string a = "-", b = "-";
};

std::vector<Change> ChangesOf(const v1::PlanSummary& a, const v1::PlanSummary& b) {
  std::map<std::string, std::string> of_b;
  for (const v1::UnitChoice& unit : b.units()) of_b[unit.unit()] = unit.format();
  const auto name = [](const std::string& format) {
    return format.empty() ? "absent" : LogSafe(format);
  };
  std::vector<Change> changes;
  for (const v1::UnitChoice& unit : a.units()) {
    const auto other = of_b.find(unit.unit());
    const bool same = other != of_b.end() && other->second == unit.format();
    if (!same) {
      changes.push_back({LogSafe(unit.unit()), name(unit.format()),
                         other == of_b.end() ? "-" : name(other->second)});
    }
    if (other != of_b.end()) of_b.erase(other);
  }
  for (const auto& [unit, format] : of_b) changes.push_back({LogSafe(unit), "-", name(format)});
  return changes;
}

// The mean KL to the source that its job measured, if it did.
std::optional<double> KlOf(const v1::Job& job) {
  for (const v1::EvaluationResult& result : job.evaluations()) {
    if (result.subject() == "artifact" && result.text().has_kl()) return result.text().kl().mean();
  }
  return std::nullopt;
}

std::string KlText(const v1::Job& job) {
  const std::optional<double> kl = KlOf(job);
  return kl ? absl::StrFormat("%.5f", *kl) : "-";
}

Json SideJson(const DiffSide& side) {
  Json json;
  json["artifact"] = side.artifact.name();
  json["job"] = side.job.name();
  json["weight_bytes"] = side.artifact.weight_bytes();
  json["bits_per_weight"] = side.job.plan().bits_per_weight();
  json["kl"] = KlOf(side.job) ? Json(*KlOf(side.job)) : Json(nullptr);
  return json;
}

}  // namespace

std::string DiffText(const DiffSide& a, const DiffSide& b) {
  Table table({"", ShortId(a.artifact.name()), ShortId(b.artifact.name())});
  const auto row = [&](const char* what, const auto& text) {
    table.AddRow({what, text(a), text(b)});
  };
  row("model", [](const DiffSide& s) { return ShortId(s.job.spec().quantize().model()); });
  row("budget", [](const DiffSide& s) { return FormatBudget(s.job.spec().quantize().budget()); });
  row("method", [](const DiffSide& s) { return LogSafe(s.job.spec().quantize().method()); });
  row("weight files", [](const DiffSide& s) {
    return absl::StrCat(FormatCount(s.artifact.weight_bytes()), " bytes");
  });
  row("bits per weight",
      [](const DiffSide& s) { return absl::StrFormat("%.3f", s.job.plan().bits_per_weight()); });
  row("KL to the source", [](const DiffSide& s) { return KlText(s.job); });
  std::string text = table.Text();
  const std::vector<Change> changes = ChangesOf(a.job.plan(), b.job.plan());
  if (changes.empty()) return absl::StrCat(text, "\nevery unit has the same format in both\n");
  absl::StrAppend(&text, "\n", changes.size(),
                  changes.size() == 1 ? " unit differs" : " units differ", "\n");
  Table units({"UNIT", ShortId(a.artifact.name()), ShortId(b.artifact.name())});
  for (const Change& change : changes) units.AddRow({change.unit, change.a, change.b});
  return absl::StrCat(text, units.Text());
}

std::string DiffJson(const DiffSide& a, const DiffSide& b) {
  Json json;
  json["a"] = SideJson(a);
  json["b"] = SideJson(b);
  json["units"] = Json::array();
  for (const Change& change : ChangesOf(a.job.plan(), b.job.plan())) {
    json["units"].push_back({{"unit", change.unit}, {"a", change.a}, {"b", change.b}});
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

}  // namespace lwq::client
