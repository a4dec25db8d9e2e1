#include "server/dispatch/task_key.h"

#include "absl/strings/str_cat.h"
#include "base/hash.h"
#include "records/canonical.h"

namespace lwq {
namespace {

constexpr absl::string_view kSchema = "lwq-task-2";

struct Kind {
  v1::TaskSpec::KindCase kind;
  absl::string_view name;
  v1::Phase phase;
  bool computes;  // its result depends on the class of numerics
};

constexpr Kind kKinds[] = {
    {v1::TaskSpec::kIngest, "ingest", v1::INGEST, false},
    {v1::TaskSpec::kPreflight, "preflight", v1::PREFLIGHT, true},
    {v1::TaskSpec::kCalibrate, "calibrate", v1::CALIBRATE, true},
    {v1::TaskSpec::kScore, "score", v1::SCORE, true},
    {v1::TaskSpec::kQuantize, "quantize", v1::QUANTIZE, true},
    {v1::TaskSpec::kAssemble, "assemble", v1::ASSEMBLE, false},
    {v1::TaskSpec::kVerify, "verify", v1::VERIFY, true},
    {v1::TaskSpec::kEvaluate, "evaluate", v1::EVALUATE, true},
    {v1::TaskSpec::kTrial, "trial", v1::PLAN, true},
};

const Kind* FindKind(const v1::TaskSpec& spec) {
  for (const Kind& kind : kKinds) {
    if (kind.kind == spec.kind_case()) return &kind;
  }
  return nullptr;
}

}  // namespace

absl::string_view KindOf(const v1::TaskSpec& spec) {
  const Kind* kind = FindKind(spec);
  return kind == nullptr ? "" : kind->name;
}

v1::Phase PhaseOf(const v1::TaskSpec& spec) {
  const Kind* kind = FindKind(spec);
  return kind == nullptr ? v1::PHASE_UNSPECIFIED : kind->phase;
}

const std::vector<absl::string_view>& TaskKinds() {
  static const auto* const names = [] {
    auto* all = new std::vector<absl::string_view>;
    for (const Kind& kind : kKinds) all->push_back(kind.name);
    return all;
  }();
  return *names;
}

v1::ModelInput ModelDigest(absl::string_view digest) {
  v1::ModelInput input;
  input.mutable_manifest()->set_digest(std::string(digest));
  return input;
}

v1::ModelInput* MutableModelOf(v1::TaskSpec& spec) {
  switch (spec.kind_case()) {
    case v1::TaskSpec::kPreflight:
      return spec.mutable_preflight()->mutable_model();
    case v1::TaskSpec::kCalibrate:
      return spec.mutable_calibrate()->mutable_model();
    case v1::TaskSpec::kScore:
      return spec.mutable_score()->mutable_model();
    case v1::TaskSpec::kQuantize:
      return spec.mutable_quantize()->mutable_model();
    case v1::TaskSpec::kAssemble:
      return spec.mutable_assemble()->mutable_model();
    case v1::TaskSpec::kVerify:
      return spec.mutable_verify()->mutable_model();
    case v1::TaskSpec::kEvaluate:
      return spec.mutable_evaluate()->mutable_model();
    case v1::TaskSpec::kTrial:
      return spec.mutable_trial()->mutable_model();
    default:
      return nullptr;
  }
}

v1::TaskNeeds NeedsOf(const v1::TaskSpec& spec, const v1::EngineClass& engine) {
  v1::TaskNeeds needs;
  const Kind* kind = FindKind(spec);
  if (kind == nullptr) return needs;
  if (kind->computes) needs.set_numerics_class(engine.numerics_class());
  auto version = engine.versions().find(std::string(kind->name));
  if (version != engine.versions().end()) needs.set_engine_version(version->second);
  return needs;
}

std::string TaskKey(const v1::TaskSpec& spec, const std::vector<std::string>& input_keys,
                    const KeyScope& scope) {
  const Kind* kind = FindKind(spec);
  v1::TaskSpec canonical = spec;
  if (v1::ModelInput* model = MutableModelOf(canonical)) model->clear_directory();
  // Each part is preceded by its length, so that no two lists of parts read the same.
  Sha256 hash;
  auto add = [&hash](absl::string_view part) {
    hash.Update(absl::StrCat(part.size(), ":"));
    hash.Update(part);
  };
  add(kSchema);
  add(kind == nullptr ? "" : kind->name);
  const v1::TaskNeeds needs = NeedsOf(spec, scope.engine);
  add(absl::StrCat(needs.engine_version()));
  add(needs.numerics_class());
  add(scope.salt);
  add(CanonicalBytes(canonical));
  for (const std::string& key : input_keys) add(key);
  return hash.FinishHex();
}

}  // namespace lwq
