// The list of collectors, and several of them as one.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/evidence/collector.h"

namespace lwq {

#define LWQ_COLLECTOR(name) extern const CollectorDef name##_collector;
#include "worker/engine/evidence/collectors.def"
#undef LWQ_COLLECTOR

namespace {

#define LWQ_COLLECTOR(name) &name##_collector,
constexpr const CollectorDef* kCollectors[] = {
#include "worker/engine/evidence/collectors.def"
};
#undef LWQ_COLLECTOR

}  // namespace

absl::Span<const CollectorDef* const> Collectors() { return kCollectors; }

absl::StatusOr<const CollectorDef*> FindCollector(absl::string_view name) {
  std::vector<absl::string_view> names;
  for (const CollectorDef* def : kCollectors) {
    if (def->name == name) return def;
    names.push_back(def->name);
  }
  return Failure(reasons::kEvidenceUnknown,
                 absl::StrCat("calibration cannot collect \"", name.substr(0, 80),
                              "\"; it can: ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<Collection> Collection::Find(absl::Span<const std::string> names) {
  Collection collection;
  for (const std::string& name : names) {
    LWQ_ASSIGN_OR_RETURN(collection.defs_.emplace_back(), FindCollector(name));
  }
  return collection;
}

std::string RoutedTokensName(const InputSpec& input) {
  return absl::StrCat("routed-tokens.", input.name);
}

bool Collection::watches_inputs() const {
  return std::any_of(defs_.begin(), defs_.end(),
                     [](const CollectorDef* def) { return def->watches_inputs; });
}

bool Collection::watches_directions() const {
  return std::any_of(defs_.begin(), defs_.end(),
                     [](const CollectorDef* def) { return def->watches_directions; });
}

absl::Status Collection::Begin(const CollectorContext& context, bool inputs_only) {
  collectors_.clear();
  inputs_ = context.inputs;
  num_tokens_.assign(context.inputs.size(), 0);
  for (const CollectorDef* def : defs_) {
    if (inputs_only && !def->watches_inputs) continue;
    LWQ_ASSIGN_OR_RETURN(collectors_.emplace_back(), def->make(context));
  }
  return absl::OkStatus();
}

absl::Status Collection::ObserveInput(size_t input, DeviceView<const float> x) {
  for (const auto& collector : collectors_) {
    LWQ_RETURN_IF_ERROR(collector->ObserveInput(input, x));
  }
  num_tokens_[input] += x.rows;
  return absl::OkStatus();
}

absl::Status Collection::FinishInput(size_t input, EvidenceSink& sink) {
  for (const auto& collector : collectors_) {
    LWQ_RETURN_IF_ERROR(collector->FinishInput(input, sink));
  }
  return sink.AddValue(RoutedTokensName(inputs_[input]), static_cast<double>(num_tokens_[input]));
}

absl::Status Collection::ObserveDirections(const TokenBatch& batch,
                                           absl::Span<const double> cosines) {
  for (const auto& collector : collectors_) {
    LWQ_RETURN_IF_ERROR(collector->ObserveDirections(batch, cosines));
  }
  return absl::OkStatus();
}

absl::Status Collection::Finish(EvidenceSink& sink) {
  for (auto& collector : collectors_) {
    LWQ_RETURN_IF_ERROR(collector->Finish(sink));
    collector.reset();
  }
  collectors_.clear();
  return absl::OkStatus();
}

}  // namespace lwq
