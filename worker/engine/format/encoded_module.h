// A module and what its linear became.
#pragma once

#include <string>

#include "worker/engine/format/weight_format.h"

namespace lwq {

struct EncodedModule {
  std::string module;
  EncodedLinear linear;
};

}  // namespace lwq
