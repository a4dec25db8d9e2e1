#include "server/blob/collectable_blob_store.h"

#include <functional>
#include <thread>

#include "server/blob/memory_blob_store.h"
#include "tests/server/blob/blob_store_conformance.h"
#include "tests/testing/simulated_clock.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;

constexpr int64_t kCapacity = int64_t{1} << 20;

// Without grace it is the store that it wraps.
class CollectableMedium : public BlobMedium {
 public:
  static std::unique_ptr<BlobMedium> Make() { return std::make_unique<CollectableMedium>(); }
  BlobStore& store() override { return blobs_; }
  void Reopen() override {}
  void FlipBit(const BlobId& id, int64_t offset) override { inner_->FlipBit(id, offset); }
  int64_t capacity_bytes() const override { return kCapacity; }

 private:
  MemoryBlobStore* const inner_ = new MemoryBlobStore(kCapacity);
  CollectableBlobStore blobs_{std::unique_ptr<BlobStore>(inner_), absl::ZeroDuration(),
                              Clock::Real()};
};

INSTANTIATE_TEST_SUITE_P(Collectable, BlobStoreConformance,
                         ::testing::Values(&CollectableMedium::Make));

class CollectableBlobStoreTest : public ::testing::Test {
 protected:
  CollectableBlobStoreTest()
      : inner_(new MemoryBlobStore(kCapacity)),
        blobs_(std::unique_ptr<BlobStore>(inner_), absl::Hours(1), &clock_) {}
  SimulatedClock clock_;
  MemoryBlobStore* const inner_;
  CollectableBlobStore blobs_;
  const BlobId id_ = *inner_->Put("content");
};

TEST_F(CollectableBlobStoreTest, WhoeverAskedMayCountOnTheAnswerForTheGracePeriod) {
  const std::vector<std::function<void()>> questions = {
      [&] { EXPECT_TRUE(*blobs_.Has(id_)); },
      [&] { EXPECT_TRUE(blobs_.FindMissing({id_})->empty()); },
      [&] { EXPECT_OK(blobs_.OpenRead(id_)); },
  };
  for (const auto& ask : questions) {
    ask();
    clock_.Advance(absl::Minutes(59));
    EXPECT_THAT(blobs_.Delete(id_), FailsWith("BLOB_IN_USE", _));
    clock_.Advance(absl::Minutes(2));
    EXPECT_FALSE(blobs_.InUse(id_, clock_.Steady()));
  }
  ASSERT_OK(blobs_.Delete(id_));
  EXPECT_FALSE(*blobs_.Has(id_));
  EXPECT_FALSE(blobs_.InUse(id_, clock_.Steady())) << "what is not there is promised to nobody";
}

TEST_F(CollectableBlobStoreTest, OneThatIsReadOrWrittenStaysHoweverLongThatTakes) {
  LWQ_ASSERT_OK_AND_ASSIGN(auto reader, blobs_.OpenRead(id_));
  clock_.Advance(absl::Hours(24));
  EXPECT_THAT(blobs_.Delete(id_), FailsWith("BLOB_IN_USE", _));
  reader.reset();
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, blobs_.OpenWrite(id_));
  clock_.Advance(absl::Hours(24));
  EXPECT_THAT(blobs_.Delete(id_), FailsWith("BLOB_IN_USE", _));
}

TEST_F(CollectableBlobStoreTest, ForACollectionTheGracePeriodEndsWhenItBegins) {
  EXPECT_TRUE(*blobs_.Has(id_));
  clock_.Advance(absl::Minutes(59));
  const absl::Duration since = clock_.Steady();
  clock_.Advance(absl::Hours(5));
  EXPECT_TRUE(blobs_.InUse(id_, since));
  blobs_.ForgetUses(since);
  EXPECT_THAT(blobs_.Delete(id_, since), FailsWith("BLOB_IN_USE", _));
  blobs_.ForgetUses(clock_.Steady());
  EXPECT_FALSE(blobs_.InUse(id_, since)) << "nothing grows for ever";
  EXPECT_OK(blobs_.Delete(id_, clock_.Steady()));
}

// Deleting and asking at once: whoever hears that it is there finds it there.
TEST_F(CollectableBlobStoreTest, NobodyIsToldOfABlobThatIsBeingDeleted) {
  for (int round = 0; round < 200; ++round) {
    ASSERT_OK(inner_->Put("content"));
    clock_.Advance(absl::Hours(2));
    std::thread collector([&] { blobs_.Delete(id_).IgnoreError(); });
    const bool told = *blobs_.Has(id_);
    collector.join();
    EXPECT_EQ(told, *inner_->Has(id_));
  }
}

}  // namespace
}  // namespace lwq::testing
