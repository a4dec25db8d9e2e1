#include "worker/task_label.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/log.h"

namespace lwq {
namespace {

constexpr size_t kNameLength = 12;

std::string KindOf(const v1::TaskSpec& spec) {
  const google::protobuf::OneofDescriptor* kinds = spec.GetDescriptor()->oneof_decl(0);
  const google::protobuf::FieldDescriptor* kind =
      spec.GetReflection()->GetOneofFieldDescriptor(spec, kinds);
  return kind == nullptr ? "none" : kind->name();
}

std::string LayerOf(const v1::TaskSpec& spec) {
  int layer = -2;
  if (spec.has_quantize()) layer = spec.quantize().layer();
  if (spec.has_score()) layer = spec.score().layer();
  if (spec.has_calibrate()) {
    return absl::StrCat(spec.calibrate().first_layer(), "-", spec.calibrate().end_layer() - 1);
  }
  if (layer == -1) return "lm_head";
  if (layer == -3) return "embedding";
  return layer >= 0 ? absl::StrCat(layer) : "";
}

}  // namespace

std::string TaskLabel(const v1::Lease& lease) {
  std::string label = absl::StrCat("task=", absl::string_view(lease.task()).substr(0, kNameLength),
                                   " kind=", KindOf(lease.spec()));
  if (const std::string layer = LayerOf(lease.spec()); !layer.empty()) {
    absl::StrAppend(&label, " layer=", layer);
  }
  std::vector<absl::string_view> jobs;
  for (const std::string& job : lease.jobs()) jobs.push_back(absl::StripPrefix(job, "jobs/"));
  if (!jobs.empty()) absl::StrAppend(&label, " job=", absl::StrJoin(jobs, ","));
  return LogSafe(label);
}

}  // namespace lwq
