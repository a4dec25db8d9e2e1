#include "worker/engine/model/state_store.h"

#include "tests/testing/test_devices.h"

namespace lwq::testing {
namespace {

// A device with memory of its own, of which there is so much.
class DeviceWithMemory : public ReferenceDevice {
 public:
  explicit DeviceWithMemory(int64_t limit)
      : ReferenceDevice(HostSpace(HostSpace::kFarAway)), limit_(limit) {}
  int64_t memory_limit_bytes() const override { return limit_; }
  bool full = false;

 protected:
  absl::StatusOr<std::unique_ptr<DeviceMemory>> Allocate(int64_t rows, int64_t cols,
                                                         int64_t element_bytes) override {
    if (full) return absl::ResourceExhaustedError("full");
    return ReferenceDevice::Allocate(rows, cols, element_bytes);
  }

 private:
  const int64_t limit_;
};

// Adds one to rows 2 and 3 of what the store has; whether the host's rows changed at once.
bool ReachesTheHostAtOnce(Device& device, StateStore& store, const Matrix& host) {
  const auto rows = *device.NewMatrix(2, store.cols());
  EXPECT_OK(store.Load(2, rows->view()));
  Matrix changed = OnHost(device, rows->view());
  for (int64_t i = 0; i < changed.size(); ++i) changed.data()[i] += 1;
  EXPECT_OK(device.Upload(changed.view(), rows->view()));
  const float before = host.Row(2)[0];
  EXPECT_OK(store.Store(rows->view(), 2));
  return host.Row(2)[0] != before;
}

TEST(StateStoreTest, StatesStayOnTheDeviceWhereTheyFitAndComeBack) {
  DeviceWithMemory with(1 << 20), full(1 << 20);
  ReferenceDevice without;
  struct Case {
    DeviceWithMemory* own;
    Device* device;
    int64_t room;
    bool on_host;
  };
  const int64_t bytes = 5 * 3 * 4;
  for (const Case& c : {Case{&with, &with, bytes, false}, Case{&with, &with, bytes - 1, true},
                        Case{&full, &full, bytes, true}, Case{nullptr, &without, bytes, true}}) {
    Matrix host(5, 3);
    for (int64_t i = 0; i < host.size(); ++i) host.data()[i] = static_cast<float>(i);
    full.full = true;
    LWQ_ASSERT_OK_AND_ASSIGN(const auto store, OpenStates(c.device, host.view(), c.room));
    full.full = false;
    EXPECT_EQ(ReachesTheHostAtOnce(*c.device, *store, host), c.on_host);
    EXPECT_OK(store->Flush());
    for (int64_t i = 0; i < host.size(); ++i) {
      const bool changed = i >= 2 * 3 && i < 4 * 3;
      EXPECT_EQ(host.data()[i], static_cast<float>(i) + (changed ? 1 : 0)) << i;
    }
  }
}

}  // namespace
}  // namespace lwq::testing
