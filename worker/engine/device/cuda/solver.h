// Factors by cuSOLVER.
#pragma once

#include <cusolverDn.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/device/cuda/device_pool.h"
#include "worker/engine/device/cuda/handles.h"
#include "worker/engine/device/cuda/view.h"

namespace lwq::cuda {

class Solver {
 public:
  static absl::StatusOr<std::unique_ptr<Solver>> Create(std::shared_ptr<DevicePool> pool);
  ~Solver();

  // Device::InverseCholesky. H = R R^T with R upper triangular is the Cholesky factorisation of H
  // with its rows and columns in reverse, L L^T; and U = R^-1 is L^-1 in reverse. Waits for the
  // device.
  absl::Status InverseCholesky(View<float> h);

 private:
  // What the device says of a factorisation.
  struct Outcome {
    int factored;  // 0, or the first column where it is not positive definite, counted from 1
    int inverted;
    unsigned long long first_bad;  // column of the result, or ~0
  };
  explicit Solver(std::shared_ptr<DevicePool> pool) : pool_(std::move(pool)) {}
  // The lower triangle of row-major `l` [n, n] becomes its factor's inverse.
  absl::Status FactorAndInvert(View<float> l, Outcome* on_device);

  const std::shared_ptr<DevicePool> pool_;
  cusolverDnHandle_t handle_ = nullptr;
  std::unique_ptr<DeviceMemory> outcome_;
  PinnedMemory outcome_on_host_;
  std::vector<uint8_t> host_workspace_;  // of work that may still be queued
};

}  // namespace lwq::cuda
