#include "server/blob/memory_blob_store.h"

#include "tests/server/blob/blob_store_conformance.h"
#include "tests/testing/failing_blob_store.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;

class MemoryMedium : public BlobMedium {
 public:
  BlobStore& store() override { return blobs_; }
  void Reopen() override {}
  void FlipBit(const BlobId& id, int64_t offset) override { blobs_.FlipBit(id, offset); }
  int64_t capacity_bytes() const override { return int64_t{1} << 20; }

 private:
  MemoryBlobStore blobs_{int64_t{1} << 20};
};

// The wrapper without a fault is the store that it wraps.
class FailingMedium : public MemoryMedium {
 public:
  BlobStore& store() override { return failing_; }

 private:
  FaultPlan plan_{NoFaults()};
  FailingBlobStore failing_{&MemoryMedium::store(), &plan_};
};

std::unique_ptr<BlobMedium> MakeMemoryMedium() { return std::make_unique<MemoryMedium>(); }
std::unique_ptr<BlobMedium> MakeFailingMedium() { return std::make_unique<FailingMedium>(); }

INSTANTIATE_TEST_SUITE_P(Memory, BlobStoreConformance, ::testing::Values(&MakeMemoryMedium));
INSTANTIATE_TEST_SUITE_P(Failing, BlobStoreConformance, ::testing::Values(&MakeFailingMedium));

TEST(FailingBlobStoreTest, ACallThatFailsAfterHasDoneItsWork) {
  MemoryBlobStore blobs;
  const BlobId id = BlobIdOf("content");
  FaultPlan plan(FailNth(3, Fault::kAfter));  // opened, written, finished
  FailingBlobStore failing(&blobs, &plan);
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, failing.OpenWrite(id));
  ASSERT_OK(writer->Append("content"));
  EXPECT_THAT(writer->Finish(), FailsWith("BLOB_IO", _));
  EXPECT_TRUE(*blobs.Has(id));
  EXPECT_EQ(plan.num_faults(), 1);
}

TEST(FailingBlobStoreTest, ASeedGivesTheSameFaultsAgain) {
  const auto faults = [](uint64_t seed) {
    FaultPlan plan(FailSome(seed, 0.3));
    std::vector<Fault> all;
    for (int i = 0; i < 1'000; ++i) all.push_back(plan.Next());
    EXPECT_NEAR(plan.num_faults(), 300, 60);  // four standard deviations of 14.5
    return all;
  };
  EXPECT_EQ(faults(1), faults(1));
  EXPECT_NE(faults(1), faults(2));
}

}  // namespace
}  // namespace lwq::testing
