#include "worker/engine/device/cuda/transfers.h"

#include <algorithm>
#include <cstring>

namespace lwq::cuda {
namespace {

// What a 2D copy asks of a pitch also where there is one row.
size_t Pitch(int64_t stride, int64_t cols) { return static_cast<size_t>(std::max(stride, cols)); }

// Calls body(row, rows, col, cols) for pieces of at most `limit` bytes, whole rows where they fit.
template <typename Body>
absl::Status ForPieces(int64_t rows, int64_t cols, int64_t limit, const Body& body) {
  if (rows == 0 || cols == 0) return absl::OkStatus();
  const int64_t piece_cols = std::min(cols, limit), piece_rows = std::max<int64_t>(1, limit / cols);
  for (int64_t r = 0; r < rows; r += piece_rows) {
    for (int64_t c = 0; c < cols; c += piece_cols) {
      LWQ_RETURN_IF_ERROR(
          body(r, std::min(piece_rows, rows - r), c, std::min(piece_cols, cols - c)));
    }
  }
  return absl::OkStatus();
}

template <typename V>
V Part(V v, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  v.data += row * v.stride + col;
  v.rows = rows;
  v.cols = cols;
  return v;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Transfers>> Transfers::Create(std::shared_ptr<DevicePool> pool,
                                                             int num_slots, int64_t slot_bytes) {
  std::unique_ptr<Transfers> transfers(new Transfers(std::move(pool), slot_bytes));
  LWQ_ASSIGN_OR_RETURN(transfers->copies_, NewStream());
  LWQ_ASSIGN_OR_RETURN(transfers->download_, NewPinned(slot_bytes));
  for (int i = 0; i < num_slots; ++i) {
    Slot slot;
    LWQ_ASSIGN_OR_RETURN(slot.host, NewPinned(slot_bytes));
    LWQ_ASSIGN_OR_RETURN(slot.device, transfers->pool_->Allocate(1, slot_bytes, 1));
    LWQ_ASSIGN_OR_RETURN(slot.arrived, NewEvent());
    LWQ_ASSIGN_OR_RETURN(slot.emptied, NewEvent());
    transfers->slots_.push_back(std::move(slot));
  }
  // The slots are there once the compute stream is; their own stream knows nothing of that.
  LWQ_RETURN_IF_ERROR(
      StatusOf(cudaStreamSynchronize(transfers->pool_->stream()), "setting up transfers"));
  return transfers;
}

// The slots go back in the compute stream's order, which must be after the last that arrived.
Transfers::~Transfers() {
  if (copies_.get() != nullptr) (void)cudaStreamSynchronize(copies_.get());
}

absl::Status Transfers::Upload(HostView<const uint8_t> host, View<uint8_t> device) {
  return ForPieces(
      host.rows, host.cols, slot_bytes_, [&](int64_t row, int64_t rows, int64_t col, int64_t cols) {
        return UploadPiece(Part(host, row, rows, col, cols), Part(device, row, rows, col, cols));
      });
}

absl::Status Transfers::UploadPiece(HostView<const uint8_t> host, View<uint8_t> device) {
  const Slot& slot = slots_[next_slot_];
  next_slot_ = (next_slot_ + 1) % slots_.size();
  const size_t width = static_cast<size_t>(host.cols), height = static_cast<size_t>(host.rows);
  uint8_t* landing = slot.device->data().address();
  const auto check = [](cudaError_t error) { return StatusOf(error, "uploading"); };
  LWQ_RETURN_IF_ERROR(check(cudaEventSynchronize(slot.arrived.get())));
  for (int64_t r = 0; r < host.rows; ++r) {
    std::memcpy(static_cast<uint8_t*>(slot.host.get()) + r * host.cols, host.Row(r), width);
  }
  LWQ_RETURN_IF_ERROR(check(cudaStreamWaitEvent(copies_.get(), slot.emptied.get(), 0)));
  LWQ_RETURN_IF_ERROR(check(cudaMemcpyAsync(landing, slot.host.get(), width * height,
                                            cudaMemcpyHostToDevice, copies_.get())));
  LWQ_RETURN_IF_ERROR(check(cudaEventRecord(slot.arrived.get(), copies_.get())));
  LWQ_RETURN_IF_ERROR(check(cudaStreamWaitEvent(pool_->stream(), slot.arrived.get(), 0)));
  LWQ_RETURN_IF_ERROR(
      check(cudaMemcpy2DAsync(device.data, Pitch(device.stride, device.cols), landing, width, width,
                              height, cudaMemcpyDeviceToDevice, pool_->stream())));
  return check(cudaEventRecord(slot.emptied.get(), pool_->stream()));
}

absl::Status Transfers::Download(View<const uint8_t> device, HostView<uint8_t> host) {
  return ForPieces(
      host.rows, host.cols, slot_bytes_, [&](int64_t row, int64_t rows, int64_t col, int64_t cols) {
        return DownloadPiece(Part(device, row, rows, col, cols), Part(host, row, rows, col, cols));
      });
}

absl::Status Transfers::DownloadPiece(View<const uint8_t> device, HostView<uint8_t> host) {
  const size_t width = static_cast<size_t>(host.cols), height = static_cast<size_t>(host.rows);
  const auto check = [](cudaError_t error) { return StatusOf(error, "downloading"); };
  LWQ_RETURN_IF_ERROR(check(cudaMemcpy2DAsync(download_.get(), width, device.data,
                                              Pitch(device.stride, device.cols), width, height,
                                              cudaMemcpyDeviceToHost, pool_->stream())));
  LWQ_RETURN_IF_ERROR(check(cudaStreamSynchronize(pool_->stream())));
  for (int64_t r = 0; r < host.rows; ++r) {
    std::memcpy(host.Row(r), static_cast<const uint8_t*>(download_.get()) + r * host.cols, width);
  }
  return absl::OkStatus();
}

}  // namespace lwq::cuda
