// Where a decoder takes a model's weights from, as F32: a dense checkpoint, an lwq artifact, or a
// checkpoint with some linears replaced by quantized ones. Read... fills host memory, Load... the
// device's: there a source should upload what is stored and have the device widen it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "worker/engine/device/device.h"
#include "worker/engine/io/checkpoint.h"
#include "worker/engine/tensor/activation_rule.h"
#include "worker/engine/tensor/matrix.h"

namespace lwq {

// Thread-safe.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // Fills `out` [out_features, in_features] (host memory) with the weight of a linear, named by its
  // module. NOT_FOUND "TENSOR_MISSING"; INVALID_ARGUMENT "NON_FINITE_WEIGHTS".
  virtual absl::Status ReadLinear(absl::string_view module, MatrixView out) const = 0;
  // Fills `out` with rows [first_row, first_row + out.rows) of any tensor of the model ([n] counts
  // as one row): embeddings, norms, biases; "<module>.weight" of a linear too, however it is
  // stored.
  virtual absl::Status ReadDense(absl::string_view tensor, int64_t first_row,
                                 MatrixView out) const = 0;
  virtual bool HasDense(absl::string_view tensor) const = 0;
  // What the linear does to its inputs before it multiplies.
  virtual ActivationRule RuleOf(absl::string_view module) const {
    static_cast<void>(module);
    return ActivationRule::kNone;
  }

  // The same two into the memory of `device`, whose next answer may be where weights that are not
  // finite are reported. Here: as they are read.
  virtual absl::Status LoadLinear(absl::string_view module, Device* device,
                                  DeviceView<float> out) const;
  virtual absl::Status LoadDense(absl::string_view tensor, int64_t first_row, Device* device,
                                 DeviceView<float> out) const;
};

// Reads "<module>.weight" and every other tensor from `checkpoint`, which must outlive it.
std::unique_ptr<WeightSource> MakeCheckpointWeights(const Checkpoint* checkpoint);

}  // namespace lwq
