#include "worker/engine/quant/lookups.h"

#include <vector>

#include "base/status_macros.h"

namespace lwq {

absl::Status AddLookups(Device* device, double share, DeviceView<float> gram) {
  const int64_t n = gram.rows;
  std::vector<float> diagonal(static_cast<size_t>(n));
  const MatrixView host{diagonal.data(), n, 1, 1};
  LWQ_RETURN_IF_ERROR(device->Download(gram.Diagonal(), host));
  double mean = 0;
  for (const float d : diagonal) mean += d / static_cast<double>(n);
  for (float& d : diagonal) d = static_cast<float>(d + share * mean);
  return device->Upload(host, gram.Diagonal());
}

}  // namespace lwq
