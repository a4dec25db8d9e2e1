#include "server/store/memory_store.h"

#include "tests/server/store/store_conformance.h"
#include "tests/testing/failing_store.h"

namespace lwq::testing {
namespace {

// In a simulation the store outlives the server that crashes, as a disk does.
class MemoryMedium : public StoreMedium {
 public:
  Store& store() override { return store_; }
  void Reopen() override {}
  void Crash() override {}

 private:
  MemoryStore store_;
};

// The wrapper without a fault is the store that it wraps.
class FailingMedium : public MemoryMedium {
 public:
  Store& store() override { return failing_; }

 private:
  FaultPlan plan_{NoFaults()};
  FailingStore failing_{&MemoryMedium::store(), &plan_};
};

std::unique_ptr<StoreMedium> MakeMemoryMedium() { return std::make_unique<MemoryMedium>(); }
std::unique_ptr<StoreMedium> MakeFailingMedium() { return std::make_unique<FailingMedium>(); }

INSTANTIATE_TEST_SUITE_P(Memory, StoreConformance, ::testing::Values(&MakeMemoryMedium));
INSTANTIATE_TEST_SUITE_P(Failing, StoreConformance, ::testing::Values(&MakeFailingMedium));

}  // namespace
}  // namespace lwq::testing
