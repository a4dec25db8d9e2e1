#include "worker/engine/model/upload_tensor.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/engine/tensor/half.h"
#include "worker/engine/tensor/widen.h"

namespace lwq {
namespace {

// So few that what was just copied is still in the cache when it is widened, on the CPU.
constexpr int64_t kElementsAtOnce = int64_t{1} << 18;

// Rows of T as they are stored, at any alignment.
template <typename T>
HostView<const T> StoredRows(const TensorView& tensor, int64_t rows, int64_t cols) {
  return {reinterpret_cast<const T*>(tensor.bytes.data()), rows, cols, cols};
}

template <typename T>
absl::Status UploadHalves(Device* device, const TensorView& tensor, DeviceView<float> out) {
  const HostView<const T> stored = StoredRows<T>(tensor, out.rows, out.cols);
  const int64_t at_once = std::max<int64_t>(1, kElementsAtOnce / std::max<int64_t>(1, out.cols));
  LWQ_ASSIGN_OR_RETURN(const auto stage,
                       device->NewBuffer<T>(std::min(at_once, out.rows), out.cols));
  for (int64_t first = 0; first < out.rows; first += at_once) {
    const int64_t count = std::min(at_once, out.rows - first);
    const DeviceView<T> rows = stage->Rows(0, count);
    LWQ_RETURN_IF_ERROR(device->Upload(stored.Rows(first, count), rows));
    LWQ_RETURN_IF_ERROR(device->Widen(rows, out.Rows(first, count)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status UploadTensor(Device* device, absl::string_view name, const TensorView& tensor,
                          DeviceView<float> out) {
  LWQ_RETURN_IF_ERROR(CheckWidenable(name, tensor, out.rows, out.cols));
  if (tensor.dtype == DType::kBF16) {
    LWQ_RETURN_IF_ERROR(UploadHalves<BF16>(device, tensor, out));
  } else if (tensor.dtype == DType::kF16) {
    LWQ_RETURN_IF_ERROR(UploadHalves<F16>(device, tensor, out));
  } else {
    LWQ_RETURN_IF_ERROR(device->Upload(StoredRows<float>(tensor, out.rows, out.cols), out));
  }
  return device->CheckFinite(absl::StrCat("tensor ", name), out);
}

}  // namespace lwq
