// The activations of a gated MLP as their definitions.
#pragma once

#include <cmath>

#include "worker/engine/device/device.h"

namespace lwq {

inline double Activate(Activation activation, double g) {
  constexpr double kRootOfTwoOverPi = 0.79788456080286535588;
  switch (activation) {
    case Activation::kSilu:
      return g / (1 + std::exp(-g));
    case Activation::kGeluTanh:
      return 0.5 * g * (1 + std::tanh(kRootOfTwoOverPi * (g + 0.044715 * g * g * g)));
  }
  return 0;
}

}  // namespace lwq
