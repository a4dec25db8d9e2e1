// What only the CUDA device has: memory in the order of its stream with a limit, transfers that
// overtake, findings that come later, faults. On the GPU of tests/testing/cuda_host.
#include "worker/engine/device/cuda/cuda_device.h"

#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "tests/testing/cuda_host/host_gpu.h"
#include "tests/testing/test_devices.h"
#include "worker/engine/device/cuda/query_tiles.h"

namespace lwq::testing {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kSlotBytes = 4096;

std::unique_ptr<CudaDevice> MakeCuda(int64_t limit_bytes = 0) {
  CudaOptions options;
  options.memory_limit_bytes = limit_bytes;
  options.num_upload_slots = 2;
  options.upload_slot_bytes = kSlotBytes;
  options.blas_workspace_bytes = 4096;
  auto device = CudaDevice::Create(options);
  EXPECT_OK(device.status());
  return *std::move(device);
}

class CudaDeviceTest : public ::testing::Test {
 protected:
  ~CudaDeviceTest() override { cuda_host::Restart(1); }
  std::unique_ptr<CudaDevice> device_ = MakeCuda();
};

TEST_F(CudaDeviceTest, SaysWhatItIs) {
  EXPECT_EQ(device_->name(), "cuda:0");
  EXPECT_THAT(device_->Description(), HasSubstr("compute capability 9.0"));
  // Results of another model of GPU, or of another cuBLAS, are not these.
  EXPECT_EQ(device_->NumericsClass(), "cuda-host-1-cublas130000-1");
  CudaOptions options;
  options.ordinal = 1;
  EXPECT_THAT(CudaDevice::Create(options).status(),
              FailsWith("DEVICE_MISSING", HasSubstr("cuda:1: this machine has 1 GPUs")));
}

TEST_F(CudaDeviceTest, MemoryHasALimitAndIsCounted) {
  const int64_t before = device_->used_bytes();
  const auto limited = MakeCuda(before + 3 * 4096);
  const int64_t own = limited->used_bytes();
  {
    const auto two = limited->NewMatrix(2, 1024);
    ASSERT_OK(two.status());
    EXPECT_EQ(limited->used_bytes(), own + 8192);
    const absl::Status status = limited->NewMatrix(2, 1024).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_FALSE(limited->Lost());
    EXPECT_EQ(limited->memory_limit_bytes(), before + 3 * 4096 - own);
    EXPECT_THAT(status.message(), HasSubstr("2 x 1024 elements of 4 bytes: 8192 bytes asked for"));
    EXPECT_THAT(status.message(), HasSubstr(absl::StrCat(own + 8192, " of at most ")));
  }
  EXPECT_EQ(limited->used_bytes(), own);
  EXPECT_OK(limited->NewMatrix(2, 1024).status());
}

// What the limit allows but the GPU has not.
TEST_F(CudaDeviceTest, TheGpuMayHaveLess) {
  const auto roomy = MakeCuda(int64_t{1} << 40);
  cuda_host::SetMemory(cuda_host::MemoryInUse() + 4096);
  const absl::Status status = roomy->NewMatrix(2, 1024).status();
  cuda_host::SetMemory(size_t{4} << 30);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("another process"));
  EXPECT_OK(roomy->NewMatrix(2, 1024).status());
  EXPECT_OK(roomy->Synchronize());
}

TEST_F(CudaDeviceTest, MemoryMayOutliveItsDevice) {
  auto matrix = device_->NewMatrix(4, 4);
  ASSERT_OK(matrix.status());
  device_.reset();
  matrix->reset();
  EXPECT_EQ(cuda_host::Fault(), "");
  EXPECT_EQ(cuda_host::MemoryInUse(), 0);
}

// Rows and single rows that are longer than a slot of the ring, for several orders of the streams.
TEST_F(CudaDeviceTest, TransfersComeInPieces) {
  const std::pair<int64_t, int64_t> shapes[] = {{1, 1}, {3, 5000}, {700, 9}, {2, 1024}, {5, 1023}};
  for (const auto& [rows, cols] : shapes) {
    for (uint64_t seed = 1; seed <= 4; ++seed) {
      cuda_host::SetSeed(seed);
      Matrix host(rows, cols + 3);
      std::iota(host.data(), host.data() + host.size(), 1.0f);
      const auto first = *device_->NewMatrix(rows, cols), second = *device_->NewMatrix(rows, cols);
      ASSERT_OK(device_->Upload<float>(host.view().Cols(2, cols), first->view()));
      ASSERT_OK(device_->Copy<float>(first->view(), second->view()));
      // The host's memory is free as soon as the call returns.
      Matrix expected(rows, cols);
      for (int64_t r = 0; r < rows; ++r) std::copy_n(host.Row(r) + 2, cols, expected.Row(r));
      std::fill_n(host.data(), host.size(), -1.0f);
      const Matrix found = OnHost(*device_, second->view());
      ASSERT_TRUE(std::equal(found.data(), found.data() + found.size(), expected.data()))
          << rows << " x " << cols << ", seed " << seed;
    }
  }
}

TEST_F(CudaDeviceTest, FindingsComeLaterAndInOrder) {
  Matrix good(4, 4), bad(4, 4);
  std::fill_n(good.data(), 16, 1.0f);
  std::fill_n(bad.data(), 16, 1.0f);
  bad.Row(2)[1] = std::numeric_limits<float>::infinity();
  const auto fine = OnDevice(device_.get(), good.view()),
             faulty = OnDevice(device_.get(), bad.view());
  EXPECT_OK(device_->CheckFinite("the first", fine->view()));
  EXPECT_OK(device_->CheckFinite("the second", faulty->view()));
  EXPECT_OK(device_->CheckFinite("the third", faulty->view()));
  const absl::Status status = device_->Synchronize();
  EXPECT_THAT(status, FailsWith("NON_FINITE_WEIGHTS", HasSubstr("the second")));
  EXPECT_THAT(std::string(status.message()), HasSubstr("[2, 1] is inf"));
  EXPECT_OK(device_->Synchronize()) << "what was reported is over";
  // More of them than there are places: one of the calls waits and reports.
  absl::Status any;
  EXPECT_OK(device_->CheckFinite("early", faulty->view()));
  for (int i = 0; i < 100; ++i) any.Update(device_->CheckFinite("a late one", fine->view()));
  EXPECT_THAT(any, FailsWith("NON_FINITE_WEIGHTS", HasSubstr("early")));
  EXPECT_OK(device_->Synchronize());
}

TEST_F(CudaDeviceTest, ADownloadReportsWhatWasFound) {
  Matrix bad(1, 1);
  bad.data()[0] = std::numeric_limits<float>::quiet_NaN();
  const auto faulty = OnDevice(device_.get(), bad.view());
  EXPECT_OK(device_->CheckFinite("a weight", faulty->view()));
  Matrix back(1, 1);
  EXPECT_THAT(device_->Download<float>(faulty->view(), back.view()),
              FailsWith("NON_FINITE_WEIGHTS", HasSubstr("a weight")));
}

TEST_F(CudaDeviceTest, ColumnsOutsideAreReported) {
  const auto from = OnDevice(device_.get(), Matrix(2, 3).view());
  const auto to = *device_->NewMatrix(2, 2);
  const auto columns = VectorOn<int32_t>(*device_, {2, 3});
  EXPECT_OK(device_->GatherColumns(from->view(), columns->span(), to->view()));
  const absl::Status status = device_->Synchronize();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("column number 1 of them lies outside"));
}

// A fault of the device is typed, and nothing works after it: the process has to end.
TEST_F(CudaDeviceTest, AFaultStays) {
  const auto out = *device_->NewMatrix(4, 4);
  Matrix host(4, 4);
  EXPECT_OK(device_->Add({DevicePtr<float>(host.data()), 4, 4, 4}, out->view()));
  const absl::Status status = device_->Synchronize();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(status.message(), HasSubstr("waiting for the device"));
  EXPECT_FALSE(device_->FillZero(out->view()).ok());
  EXPECT_FALSE(device_->NewMatrix(1, 1).ok());
  EXPECT_TRUE(device_->Lost());
}

TEST_F(CudaDeviceTest, AViewPastItsBufferIsAFault) {
  const auto m = *device_->NewMatrix(4, 128);
  DeviceView<float> wrong = m->view();
  wrong.stride = 129;
  ASSERT_OK(device_->SoftCap(1, wrong));
  EXPECT_EQ(device_->Synchronize().code(), absl::StatusCode::kInternal);
}

TEST_F(CudaDeviceTest, WhatItCannotDoIsRefused) {
  const auto batch = *device_->NewBatch({{{0, 1}}}, {{0}});
  const AttentionShape shape{.num_heads = 1, .num_kv_heads = 1, .head_dim = 257, .scale = 1};
  const auto x = *device_->NewMatrix(1, 257);
  EXPECT_EQ(device_->Attention(x->view(), x->view(), x->view(), *batch, shape, x->view()).code(),
            absl::StatusCode::kUnimplemented);
  const auto wide = *device_->NewMatrix(1, 7000);
  const GptqColumns block{.w = wide->view()};
  EXPECT_EQ(device_->GptqBlock(block).code(), absl::StatusCode::kInvalidArgument);
  // Prepared in one type for a weight in the other.
  ASSERT_OK(device_->FillZero(x->view()));
  const auto weight = *device_->PrepareWeight(x->view(), ComputeType::kBF16);
  const auto input = *device_->NewInput(1, 257, ComputeType::kF32);
  const auto y = *device_->NewMatrix(1, 1);
  EXPECT_THAT(device_->Linear(*input, *weight, y->view()).message(), HasSubstr("prepared as f32"));
}

TEST(QueryTilesTest, ListsHoldTheAncestorsAndTilesTheSegment) {
  // A context of 40, a choice after it, one that continues the choice.
  const std::vector<Segment> segments = {{0, 40, -1, 0}, {40, 5, 0, 40}, {45, 33, 1, 45}};
  const cuda::AttentionPlan plan = cuda::PlanAttention(segments);
  ASSERT_EQ(plan.ranges.size(), 6);
  EXPECT_EQ(plan.ranges[5].row, 45);
  EXPECT_EQ(plan.ranges[5].first, 45);
  EXPECT_EQ(plan.ranges[4].row, 40);
  EXPECT_EQ(plan.ranges[4].first, 40);
  ASSERT_EQ(plan.tiles.size(), 5);
  // The longest list first: the last token of the third segment sees 78.
  EXPECT_EQ(plan.tiles[0].row, 77);
  EXPECT_EQ(plan.tiles[0].count, 1);
  EXPECT_EQ(plan.tiles[0].place, 77);
  EXPECT_EQ(plan.tiles[0].num_ranges, 3);
  int covered = 0;
  for (const cuda::QueryTile& tile : plan.tiles) covered += tile.count;
  EXPECT_EQ(covered, 78);
}

}  // namespace
}  // namespace lwq::testing
