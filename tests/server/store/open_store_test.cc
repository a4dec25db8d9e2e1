#include "server/store/open_store.h"

#include "base/file.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(OpenStoreTest, AUrlSaysWhichStore) {
  LWQ_ASSERT_OK_AND_ASSIGN(auto directory, TempDirectory::Create());
  for (const char* prefix : {"", "sqlite:", "sqlite://"}) {
    LWQ_ASSERT_OK_AND_ASSIGN(auto store, OpenStore(prefix + directory.path()));
    EXPECT_EQ(store->name(), "sqlite");
  }
  LWQ_ASSERT_OK_AND_ASSIGN(auto memory, OpenStore("memory:"));
  EXPECT_EQ(memory->name(), "memory");
  EXPECT_THAT(OpenStore(""), FailsWith("STORE_URL_INVALID", _));
  EXPECT_THAT(OpenStore("mysql://u:secret@h/d"),
              FailsWith("STORE_URL_INVALID", Not(HasSubstr("secret"))));
}

}  // namespace
}  // namespace lwq::testing
