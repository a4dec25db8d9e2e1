#include "server/dispatch/output_check.h"

#include <cmath>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "records/blob_names.h"
#include "records/plan_records.h"

namespace lwq {
namespace {

constexpr int kMaxBlobs = 100'000;
constexpr size_t kMaxNameBytes = 255;

absl::Status Refuse(const v1::TaskRecord& task, absl::string_view what) {
  return Failure(reasons::kOutputInvalid,
                 absl::StrCat("the output of ", task.kind(), " task ", task.key(), ": ", what));
}

bool HasBlob(const v1::TaskOutput& output, const std::string& name) {
  for (const v1::NamedBlob& blob : output.blobs()) {
    if (blob.name() == name) return true;
  }
  return false;
}

absl::Status CheckBlobs(const v1::TaskRecord& task, const v1::TaskOutput& output) {
  if (output.blobs_size() > kMaxBlobs) {
    return Refuse(task, absl::StrCat(output.blobs_size(), " blobs, at most ", kMaxBlobs));
  }
  std::set<std::string> names;
  for (const v1::NamedBlob& blob : output.blobs()) {
    // Names become names of files on the machines of those who download.
    if (!IsPlainFileName(blob.name()) || blob.name().size() > kMaxNameBytes) {
      return Refuse(task, "a blob whose name is not a plain file name");
    }
    if (!names.insert(blob.name()).second) {
      return Refuse(task, absl::StrCat("two blobs are named ", blob.name()));
    }
    if (!IsSha256Hex(blob.blob().sha256()) || blob.blob().size_bytes() < 0) {
      return Refuse(task, absl::StrCat("blob ", blob.name(), " has no digest"));
    }
  }
  if (!std::isfinite(output.seconds()) || output.seconds() < 0) {
    return Refuse(task, absl::StrCat("it took ", output.seconds(), " s"));
  }
  return absl::OkStatus();
}

absl::Status CheckTrial(const v1::TaskRecord& task, const v1::TrialResult& trial) {
  bool finite = std::isfinite(trial.kl()) && std::isfinite(trial.standard_error());
  for (double kl : trial.block_kl()) finite = finite && std::isfinite(kl);
  return finite ? absl::OkStatus() : Refuse(task, "its KL is not finite");
}

absl::Status CheckIngest(const v1::TaskRecord& task, const v1::ModelManifest& manifest) {
  const v1::Inventory& inventory = manifest.inventory();
  if (!IsSha256Hex(manifest.digest()) || manifest.family().empty() || manifest.files().empty()) {
    return Refuse(task, "the manifest lacks a digest, a family or files");
  }
  for (const v1::ModelFile& file : manifest.files()) {
    if (!IsPlainFileName(file.name()) || file.size_bytes() < 0) {
      return Refuse(task, "a file whose name is not a plain file name");
    }
  }
  if (inventory.num_layers() <= 0 || inventory.units().empty() ||
      manifest.layer_digests_size() != inventory.num_layers()) {
    return Refuse(task, absl::StrCat("the inventory has ", inventory.num_layers(), " layers, ",
                                     inventory.units_size(), " units and ",
                                     manifest.layer_digests_size(), " layer digests"));
  }
  for (const std::string& digest : manifest.layer_digests()) {
    if (!IsSha256Hex(digest)) return Refuse(task, "a layer has no digest");
  }
  for (const v1::InventoryUnit& unit : inventory.units()) {
    if (unit.layer() < -1 || unit.layer() >= inventory.num_layers() || unit.linears().empty()) {
      return Refuse(task, absl::StrCat("unit ", unit.name(), " has ", unit.linears_size(),
                                       " linears in layer ", unit.layer()));
    }
    for (const v1::InventoryLinear& linear : unit.linears()) {
      if (linear.out_features() <= 0 || linear.in_features() <= 0) {
        return Refuse(task, absl::StrCat(linear.module(), " has no size"));
      }
    }
  }
  if (absl::Status readable = InventoryOf(inventory).status(); !readable.ok()) {
    return Refuse(task, readable.message());
  }
  return absl::OkStatus();
}

absl::Status CheckCalibrate(const v1::TaskRecord& task, const v1::Model* model,
                            const v1::TaskOutput& output) {
  const v1::CalibrateTask& spec = task.spec().calibrate();
  const int num_layers = model == nullptr ? 0 : model->manifest().inventory().num_layers();
  for (const v1::LayerValues& layer : output.calibrate().layers()) {
    // The head stands behind the last layer, as -1.
    if (layer.layer() >= spec.end_layer() ||
        (layer.layer() >= 0 && layer.layer() < spec.first_layer())) {
      return Refuse(task,
                    absl::StrCat("values of layer ", layer.layer(), ", which it did not run"));
    }
    for (const auto& [collector, value] : layer.values()) {
      if (!std::isfinite(value))
        return Refuse(task, absl::StrCat("a ", collector, " is not finite"));
    }
  }
  if (spec.end_layer() < num_layers && !HasBlob(output, absl::StrCat("state.", spec.end_layer()))) {
    return Refuse(task, "what the next segment begins with is missing");
  }
  const bool scored = spec.hidden_states() && spec.held_out().score_tokens() > 0;
  for (int layer = spec.first_layer(); scored && layer < spec.end_layer(); ++layer) {
    const std::string name = absl::StrCat("hidden.", layer);
    if (!HasBlob(output, name)) return Refuse(task, absl::StrCat("no blob ", name));
  }
  return absl::OkStatus();
}

absl::Status CheckScore(const v1::TaskRecord& task, const v1::ScoreResult& score) {
  const v1::ScoreTask& spec = task.spec().score();
  if (score.layer() != spec.layer() || !std::isfinite(score.layer_score())) {
    return Refuse(task, absl::StrCat("a score of ", score.layer_score(), " for layer ",
                                     score.layer(), ", not ", spec.layer()));
  }
  std::set<std::string> costs;
  for (const v1::UnitCost& cost : score.costs()) {
    if (!std::isfinite(cost.cost())) {
      return Refuse(task, absl::StrCat("the cost of ", cost.unit(), " is not finite"));
    }
    costs.insert(UnitBlobName(cost.unit(), cost.format()));
  }
  for (const v1::UnitFormats& unit : spec.units()) {
    for (const std::string& format : unit.formats()) {
      if (costs.count(UnitBlobName(unit.unit(), format)) == 0) {
        return Refuse(task, absl::StrCat("no cost of ", unit.unit(), " as ", format));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckQuantize(const v1::TaskRecord& task, const v1::TaskOutput& output) {
  std::set<std::string> reported;
  for (const v1::LinearReport& linear : output.quantize().report().linears()) {
    reported.insert(UnitBlobName(linear.unit(), linear.format()));
  }
  int wanted = 0;
  for (const v1::UnitFormats& unit : task.missing_units()) {
    for (const std::string& format : unit.formats()) {
      const std::string name = UnitBlobName(unit.unit(), format);
      ++wanted;
      if (!HasBlob(output, name) || reported.count(name) == 0) {
        return Refuse(task, absl::StrCat("no blob or no report of ", name));
      }
    }
  }
  if (task.missing_edits()) {
    ++wanted;
    const std::string name = EditsBlobName(task.layer());
    if (!HasBlob(output, name)) return Refuse(task, absl::StrCat("no blob ", name));
  }
  if (output.blobs_size() != wanted) {
    return Refuse(task, absl::StrCat(output.blobs_size(), " blobs, ", wanted, " asked for"));
  }
  return absl::OkStatus();
}

absl::Status CheckEvaluate(const v1::TaskRecord& task, const v1::EvaluationResult& result) {
  const v1::EvaluateTask& spec = task.spec().evaluate();
  if (result.subject() != spec.subject() || result.dataset() != spec.dataset_name() ||
      result.result_case() == v1::EvaluationResult::RESULT_NOT_SET) {
    return Refuse(task,
                  absl::StrCat("a result of \"", result.subject(), "\" on \"", result.dataset(),
                               "\", asked for ", spec.subject(), " on ", spec.dataset_name()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckOutput(const v1::TaskRecord& task, const v1::Model* model,
                         const v1::TaskOutput& output) {
  LWQ_RETURN_IF_ERROR(CheckBlobs(task, output));
  const absl::Status other = Refuse(task, "it is a result of another kind of task");
  switch (task.spec().kind_case()) {
    case v1::TaskSpec::kIngest:
      return output.has_ingest() ? CheckIngest(task, output.ingest()) : other;
    case v1::TaskSpec::kPreflight:
      return output.has_preflight() ? absl::OkStatus() : other;
    case v1::TaskSpec::kCalibrate:
      return output.has_calibrate() ? CheckCalibrate(task, model, output) : other;
    case v1::TaskSpec::kScore:
      return output.has_score() ? CheckScore(task, output.score()) : other;
    case v1::TaskSpec::kQuantize:
      return output.has_quantize() ? CheckQuantize(task, output) : other;
    case v1::TaskSpec::kAssemble:
      if (!output.has_assemble()) return other;
      return output.blobs().empty() || output.assemble().weight_file_bytes() <= 0
                 ? Refuse(task, "it has no files")
                 : absl::OkStatus();
    case v1::TaskSpec::kVerify:
      if (!output.has_verify()) return other;
      return HasBlob(output, "lwq-manifest.json") ? absl::OkStatus()
                                                  : Refuse(task, "no blob lwq-manifest.json");
    case v1::TaskSpec::kEvaluate:
      return output.has_evaluate() ? CheckEvaluate(task, output.evaluate()) : other;
    case v1::TaskSpec::kTrial:
      if (!output.has_trial()) return other;
      return CheckTrial(task, output.trial());
    case v1::TaskSpec::KIND_NOT_SET:
      break;
  }
  return other;
}

}  // namespace lwq
