#include "records/canonical.h"

#include "gtest/gtest.h"
#include "proto/lwq/v1/job.pb.h"

namespace lwq {
namespace {

TEST(CanonicalTest, EqualMessagesHaveEqualBytesWhateverTheOrderOfTheirMaps) {
  v1::Job first, second;
  for (int i = 0; i < 50; ++i) (*first.mutable_labels())[std::to_string(i)] = "x";
  for (int i = 49; i >= 0; --i) (*second.mutable_labels())[std::to_string(i)] = "x";
  EXPECT_EQ(CanonicalBytes(first), CanonicalBytes(second));
  EXPECT_EQ(CanonicalDigest(first), CanonicalDigest(second));
  (*second.mutable_labels())["7"] = "y";
  EXPECT_NE(CanonicalDigest(first), CanonicalDigest(second));
}

}  // namespace
}  // namespace lwq
