#include "worker/engine/artifact/load_stored.h"

#include <algorithm>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "worker/engine/format/fp8_row.h"
#include "worker/engine/format/gguf.h"
#include "worker/engine/format/grid.h"
#include "worker/engine/model/upload_tensor.h"
#include "worker/engine/tensor/pack_bits.h"

namespace lwq {
namespace {

constexpr int64_t kElementsAtOnce = int64_t{1} << 20;

// Of what crosses in parts.
int64_t RowsAtOnce(DeviceView<float> out) {
  return std::clamp<int64_t>(kElementsAtOnce / std::max<int64_t>(1, out.cols), 1,
                             std::max<int64_t>(1, out.rows));
}

TensorView RowsOf(const TensorView& tensor, int64_t first, int64_t count) {
  const int64_t row_bytes = tensor.shape[1] * SizeOf(tensor.dtype);
  return {tensor.dtype,
          {count, tensor.shape[1]},
          tensor.bytes.subspan(static_cast<size_t>(first * row_bytes),
                               static_cast<size_t>(count * row_bytes))};
}

// Rows from `first_row` on: what is stored crosses, and becomes codes and then weights there, some
// rows at a time.
absl::Status LoadGrid(absl::string_view module, const StoredLinear& stored, int64_t first_row,
                      Device* device, DeviceView<float> out) {
  const GridFormat& format = *stored.format->grid();
  LWQ_RETURN_IF_ERROR(CheckParts(module, stored));
  const GridSpec grid{
      .bits = format.bits(), .group_size = format.group_size(), .symmetric = format.symmetric()};
  LWQ_ASSIGN_OR_RETURN(const auto scales, device->NewMatrix(out.rows, grid.NumGroups(out.cols)));
  LWQ_RETURN_IF_ERROR(UploadTensor(device, absl::StrCat("of the scales of ", module),
                                   RowsOf(stored.parts[1], first_row, out.rows), scales->view()));
  const Matrix host_zeros = format.Zeros(stored);
  LWQ_ASSIGN_OR_RETURN(const auto zeros,
                       device->NewMatrix(grid.symmetric ? 0 : out.rows, host_zeros.cols()));
  LWQ_RETURN_IF_ERROR(
      device->Upload(host_zeros.view().Rows(first_row, zeros->view().rows), zeros->view()));
  const int64_t row_bytes = 4 * PackedWords(out.cols, format.bits());
  const HostView<const uint8_t> stream = {stored.parts[0].bytes.data(), stored.out_features,
                                          row_bytes, row_bytes};
  const int64_t at_once = RowsAtOnce(out);
  LWQ_ASSIGN_OR_RETURN(const auto packed, device->NewBuffer<uint8_t>(at_once, row_bytes));
  LWQ_ASSIGN_OR_RETURN(const auto codes, device->NewBuffer<uint8_t>(at_once, out.cols));
  for (int64_t done = 0; done < out.rows; done += at_once) {
    const int64_t count = std::min(at_once, out.rows - done);
    LWQ_RETURN_IF_ERROR(
        device->Upload(stream.Rows(first_row + done, count), packed->Rows(0, count)));
    LWQ_RETURN_IF_ERROR(
        device->UnpackCodes(packed->Rows(0, count), format.bits(), codes->Rows(0, count)));
    LWQ_RETURN_IF_ERROR(device->Dequantize(
        codes->Rows(0, count), grid, scales->Rows(done, count),
        grid.symmetric ? zeros->view() : zeros->Rows(done, count), out.Rows(done, count)));
  }
  return absl::OkStatus();
}

// Rows of bytes from `first_row` on cross, a part at a time, and `make` makes weights of them
// there.
absl::Status LoadBytes(
    const TensorView& stored, int64_t first_row, Device* device, DeviceView<float> out,
    absl::FunctionRef<absl::Status(int64_t, DeviceView<const uint8_t>, DeviceView<float>)> make) {
  const int64_t row_bytes = stored.shape[1] * SizeOf(stored.dtype);
  const HostView<const uint8_t> bytes = {stored.bytes.data(), stored.shape[0], row_bytes,
                                         row_bytes};
  const int64_t at_once = RowsAtOnce(out);
  LWQ_ASSIGN_OR_RETURN(const auto stage, device->NewBuffer<uint8_t>(at_once, row_bytes));
  for (int64_t done = 0; done < out.rows; done += at_once) {
    const int64_t count = std::min(at_once, out.rows - done);
    LWQ_RETURN_IF_ERROR(device->Upload(bytes.Rows(first_row + done, count), stage->Rows(0, count)));
    LWQ_RETURN_IF_ERROR(make(done, stage->Rows(0, count), out.Rows(done, count)));
  }
  return absl::OkStatus();
}

absl::Status LoadBlocks(absl::string_view module, const StoredLinear& stored, int64_t first_row,
                        Device* device, DeviceView<float> out) {
  const GgufTypeDef& type = stored.format->gguf()->type();
  LWQ_RETURN_IF_ERROR(CheckParts(module, stored));
  LWQ_RETURN_IF_ERROR(
      LoadBytes(stored.parts[0], first_row, device, out,
                [&](int64_t, DeviceView<const uint8_t> blocks, DeviceView<float> weight) {
                  return device->DequantizeBlocks(blocks, *type.shape->layout, weight);
                }));
  return device->CheckFinite(
      absl::StrCat("rows of ", module, " from ", first_row, " on, in blocks of ", type.name), out);
}

absl::Status LoadE4M3(absl::string_view module, const StoredLinear& stored, int64_t first_row,
                      Device* device, DeviceView<float> out) {
  LWQ_RETURN_IF_ERROR(CheckParts(module, stored));
  LWQ_ASSIGN_OR_RETURN(const auto scales, device->NewMatrix(out.rows, 1));
  LWQ_RETURN_IF_ERROR(UploadTensor(device, absl::StrCat("of the scales of ", module),
                                   RowsOf(stored.parts[1], first_row, out.rows), scales->view()));
  LWQ_RETURN_IF_ERROR(
      LoadBytes(stored.parts[0], first_row, device, out,
                [&](int64_t done, DeviceView<const uint8_t> codes, DeviceView<float> weight) {
                  return device->DequantizeE4M3(codes, scales->Rows(done, weight.rows), weight);
                }));
  return device->CheckFinite(
      absl::StrCat("rows of ", module, " from ", first_row, " on, in F8_E4M3"), out);
}

// Of a format that no device knows.
absl::Status LoadByRows(absl::string_view module, const StoredLinear& stored, int64_t first_row,
                        Device* device, DeviceView<float> out) {
  Matrix host(RowsAtOnce(out), out.cols);
  for (int64_t done = 0; done < out.rows; done += host.rows()) {
    const MatrixView rows = host.view().Rows(0, std::min(host.rows(), out.rows - done));
    LWQ_RETURN_IF_ERROR(stored.format->Dequantize(module, stored.parts, first_row + done, rows));
    LWQ_RETURN_IF_ERROR(device->Upload(rows, out.Rows(done, rows.rows)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckStoredRows(absl::string_view module, const StoredLinear& stored,
                             int64_t first_row, int64_t rows, int64_t cols) {
  if (first_row >= 0 && rows >= 0 && first_row <= stored.out_features - rows &&
      cols == stored.in_features) {
    return absl::OkStatus();
  }
  return Failure(
      reasons::kConfigMismatch,
      absl::StrCat(module, " is stored as [", stored.out_features, ", ", stored.in_features,
                   "], rows ", first_row, " to ", first_row + rows, " of ", cols, " are needed"));
}

absl::Status LoadStoredRows(absl::string_view module, const StoredLinear& stored, int64_t first_row,
                            Device* device, DeviceView<float> out) {
  LWQ_RETURN_IF_ERROR(CheckStoredRows(module, stored, first_row, out.rows, out.cols));
  const WeightFormat& format = *stored.format;
  if (format.grid() != nullptr) return LoadGrid(module, stored, first_row, device, out);
  if (format.gguf() != nullptr) return LoadBlocks(module, stored, first_row, device, out);
  if (format.fp8() != nullptr) return LoadE4M3(module, stored, first_row, device, out);
  if (format.dense()) {
    LWQ_RETURN_IF_ERROR(CheckParts(module, stored));
    return UploadTensor(device, module, RowsOf(stored.parts[0], first_row, out.rows), out);
  }
  return LoadByRows(module, stored, first_row, device, out);
}

absl::Status LoadStored(absl::string_view module, const StoredLinear& stored, Device* device,
                        DeviceView<float> out) {
  if (out.rows != stored.out_features) {
    return Failure(
        reasons::kConfigMismatch,
        absl::StrCat(module, " is stored as [", stored.out_features, ", ", stored.in_features,
                     "], [", out.rows, ", ", out.cols, "] is needed"));
  }
  return LoadStoredRows(module, stored, 0, device, out);
}

}  // namespace lwq
