#include "server/blob/open_blob_store.h"

#include "base/file.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;

TEST(OpenBlobStoreTest, AUrlSaysWhichStore) {
  LWQ_ASSERT_OK_AND_ASSIGN(auto directory, TempDirectory::Create());
  for (const std::string& url : {directory.path(), "file:" + directory.path(),
                                 "file://" + directory.path(), std::string("memory:")}) {
    LWQ_ASSERT_OK_AND_ASSIGN(auto blobs, OpenBlobStore(url));
    EXPECT_OK(blobs->Put("content"));
  }
  EXPECT_THAT(OpenBlobStore(""), FailsWith("BLOB_URL_INVALID", _));
  EXPECT_THAT(OpenBlobStore("gopher://x"), FailsWith("BLOB_URL_INVALID", _));
}

}  // namespace
}  // namespace lwq::testing
