#include "server/store/blob_refs.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/lwq/v1/record.pb.h"

namespace lwq::testing {
namespace {

using ::testing::ElementsAre;

TEST(BlobRefs, AreFoundAtAnyDepth) {
  v1::CacheRecord record;
  record.mutable_output()->add_blobs()->mutable_blob()->set_sha256("a");
  record.mutable_output()->add_blobs()->mutable_blob()->set_sha256("b");
  std::vector<std::string> found;
  ForEachBlobRef(record, [&](const v1::BlobRef& blob) { found.push_back(blob.sha256()); });
  EXPECT_THAT(found, ElementsAre("a", "b"));
}

TEST(BlobRefs, ABlobRefIsItsOwn) {
  v1::BlobRef blob;
  blob.set_sha256("a");
  int count = 0;
  ForEachBlobRef(blob, [&](const v1::BlobRef&) { ++count; });
  EXPECT_EQ(count, 1);
}

}  // namespace
}  // namespace lwq::testing
