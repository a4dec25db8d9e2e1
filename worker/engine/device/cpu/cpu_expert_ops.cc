// What a mixture of experts adds to the CPU's operations: rows of tokens to the experts and back,
// each row on one thread. Numbers per token are few, so routing is in F64 and without kernels.
#include <algorithm>
#include <cmath>

#include "base/status_macros.h"
#include "worker/engine/device/check_shapes.h"
#include "worker/engine/device/cpu/cpu_device.h"
#include "worker/engine/device/cpu/cpu_space.h"

namespace lwq {
namespace {

constexpr int64_t kRowsAtOnce = 16;

template <typename Body>
void ForRows(ThreadPool& pool, int64_t rows, const Body& body) {
  pool.ParallelForBlocks(rows, kRowsAtOnce, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) body(r);
  });
}

// The greatest logit that is not among the first `num_chosen` of `chosen`; of equal ones the first.
int32_t Best(const float* logits, int32_t num_experts, const int32_t* chosen, int64_t num_chosen) {
  int32_t best = -1;
  for (int32_t e = 0; e < num_experts; ++e) {
    if (best >= 0 && !(logits[e] > logits[best])) continue;
    if (std::find(chosen, chosen + num_chosen, e) == chosen + num_chosen) best = e;
  }
  return best;
}

void ChooseForRow(const float* logits, int64_t num_experts, bool normalized, int64_t wanted,
                  int32_t* chosen, float* share) {
  double total = 0, chosen_total = 0;
  for (int64_t j = 0; j < wanted; ++j) {
    chosen[j] = Best(logits, static_cast<int32_t>(num_experts), chosen, j);
  }
  const double top = logits[chosen[0]];
  const auto power = [&](int64_t expert) { return std::exp(logits[expert] - top); };
  for (int64_t e = 0; e < num_experts; ++e) total += power(e);
  for (int64_t j = 0; j < wanted; ++j) chosen_total += power(chosen[j]);
  for (int64_t j = 0; j < wanted; ++j) {
    share[j] = static_cast<float>(power(chosen[j]) / (normalized ? chosen_total : total));
  }
}

}  // namespace

absl::Status CpuDevice::ChooseExperts(DeviceView<const float> logits, bool normalized,
                                      DeviceView<int32_t> chosen, DeviceView<float> share) {
  LWQ_RETURN_IF_ERROR(CheckChosenExperts(logits, chosen, share));
  ForRows(pool_, logits.rows, [&](int64_t r) {
    ChooseForRow(Row(logits, r), logits.cols, normalized, chosen.cols, Row(chosen, r),
                 Row(share, r));
  });
  return absl::OkStatus();
}

absl::Status CpuDevice::GatherRows(DeviceView<const float> from, DeviceSpan<const int32_t> rows,
                                   DeviceView<float> to) {
  LWQ_RETURN_IF_ERROR(CheckShape("gathered rows", to, to.rows, from.cols));
  LWQ_RETURN_IF_ERROR(CheckRows(Host(rows), to.rows, from.rows));
  ForRows(pool_, to.rows,
          [&](int64_t r) { std::copy_n(Row(from, Host(rows.data)[r]), to.cols, Row(to, r)); });
  return absl::OkStatus();
}

absl::Status CpuDevice::ScatterAddRows(DeviceView<const float> from,
                                       DeviceSpan<const int32_t> rows,
                                       DeviceSpan<const float> scale, DeviceView<float> to) {
  LWQ_RETURN_IF_ERROR(CheckShape("rows that are added", from, from.rows, to.cols));
  LWQ_RETURN_IF_ERROR(CheckLength("their scales", scale.size, from.rows));
  LWQ_RETURN_IF_ERROR(CheckRows(Host(rows), from.rows, to.rows));
  ForRows(pool_, from.rows, [&](int64_t r) {
    const float factor = Host(scale.data)[r];
    const float* source = Row(from, r);
    float* sum = Row(to, Host(rows.data)[r]);
    for (int64_t c = 0; c < from.cols; ++c) sum[c] += factor * source[c];
  });
  return absl::OkStatus();
}

absl::Status CpuDevice::SigmoidRows(DeviceSpan<const float> gate, DeviceView<float> x) {
  LWQ_RETURN_IF_ERROR(CheckLength("gates of rows", gate.size, x.rows));
  ForRows(pool_, x.rows, [&](int64_t r) {
    const float factor = static_cast<float>(1 / (1 + std::exp(-double{Host(gate.data)[r]})));
    float* row = Row(x, r);
    for (int64_t c = 0; c < x.cols; ++c) row[c] *= factor;
  });
  return absl::OkStatus();
}

}  // namespace lwq
