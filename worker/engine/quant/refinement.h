// Refinement of a quantized linear: what any rounding left over is taken by coordinate descent on
// the calibrated error tr((W - Q) H (W - Q)^T), where every scale and every code in turn moves to
// its best place while all others stay (methods 4.6, the closed form for one linear; the scales are
// our addition). GPTQ decides each column once, before it knows the later ones' errors; sweeps
// afterwards do know them.
#pragma once

#include "absl/status/status.h"
#include "worker/engine/quant/device_linear.h"

namespace lwq {

// Goes over the columns of `linear`, which came from `weight` [out, in]: changes codes and, where
// its grid was fitted by a search, scales; what each row's error fell by becomes its gain. The
// error never rises. Needs statistics.hessian(); memory: three matrices of the weight's size and a
// rounded one.
absl::Status Refine(Device* device, DeviceView<const float> weight,
                    const InputStatistics& statistics, DeviceLinear* linear);

}  // namespace lwq
