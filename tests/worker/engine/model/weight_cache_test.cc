#include "worker/engine/model/weight_cache.h"

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

class SizedWeight : public PreparedWeight {
 public:
  explicit SizedWeight(int64_t bytes) : bytes_(bytes) {}
  int64_t out_features() const override { return 1; }
  int64_t in_features() const override { return 1; }
  int64_t size_bytes() const override { return bytes_; }

 private:
  const int64_t bytes_;
};

// How many of passes over weights of those sizes are loads, with room for `limit` bytes.
int LoadsOf(int passes, const std::vector<int64_t>& sizes, int64_t limit, WeightCache& cache) {
  cache.set_limit_bytes(limit);
  int loads = 0;
  for (int pass = 0; pass < passes; ++pass) {
    for (size_t i = 0; i < sizes.size(); ++i) {
      EXPECT_OK(cache.Get(std::to_string(i), [&]() -> absl::StatusOr<WeightCache::Weight> {
        ++loads;
        return std::make_shared<SizedWeight>(sizes[i]);
      }));
    }
  }
  return loads;
}

TEST(WeightCacheTest, KeepsWhatFitsOfPassesThatGoOnAndOn) {
  WeightCache all, some, none;
  EXPECT_EQ(LoadsOf(5, {10, 10, 10}, 30, all), 3);
  EXPECT_EQ(all.used_bytes(), 30);
  // The second is too large, the third is not: one load of each, and four more of the second.
  EXPECT_EQ(LoadsOf(5, {10, 25, 10}, 30, some), 3 + 4);
  EXPECT_EQ(some.used_bytes(), 20);
  EXPECT_EQ(LoadsOf(5, {10, 10, 10}, 0, none), 15);
}

TEST(WeightCacheTest, AnErrorIsNotKept) {
  WeightCache cache;
  cache.set_limit_bytes(100);
  EXPECT_FALSE(
      cache
          .Get("w",
               [] { return absl::StatusOr<WeightCache::Weight>(absl::UnavailableError("later")); })
          .ok());
  EXPECT_OK(cache.Get("w", []() -> absl::StatusOr<WeightCache::Weight> {
    return std::make_shared<SizedWeight>(1);
  }));
}

}  // namespace
}  // namespace lwq
