#include "base/rpc/token.h"

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/rpc/channel.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(TokenTest, ATextHasAnIdAnd256RandomBits) {
  std::set<std::string> texts;
  for (int i = 0; i < 100; ++i) {
    const std::string text = MakeTokenText("t1");
    EXPECT_EQ(text.size(), sizeof("lwq_t1_") - 1 + 43);
    EXPECT_EQ(TokenIdOf(text), "t1");
    EXPECT_TRUE(texts.insert(text).second) << "twice the same";
  }
  const std::string secret(43, 'a');
  EXPECT_EQ(TokenIdOf("lwq_x_" + std::string(43, '_')), "x");
  for (const std::string& text :
       {std::string(), secret, "lwq_" + secret, "lwq__" + secret, "lwq_X_" + secret,
        "lwq_x-y_" + secret, "lwq_x_" + secret + "a", "lwq_x_" + secret.substr(1),
        "lwq_x_" + secret.substr(1) + "+", "LWQ_x_" + secret, " lwq_x_" + secret}) {
    EXPECT_EQ(TokenIdOf(text), std::nullopt) << text;
  }
}

TEST(TokenTest, AFileHoldsOneTokenAndErrorsDoNotTellIt) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto directory, TempDirectory::Create());
  const std::string path = JoinPath(directory.path(), "token");
  EXPECT_THAT(ReadTokenFile(path), FailsWith("TOKEN_FILE_INVALID", HasSubstr(path)));
  const std::string text = MakeTokenText("t1");
  ASSERT_OK(WriteFileAtomically(path, absl::StrCat("\n ", text, "\r\n")));
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string read, ReadTokenFile(path));
  EXPECT_EQ(read, text);
  for (const std::string& content :
       {std::string(), "Bearer " + text, text + "\n" + text, text.substr(1)}) {
    ASSERT_OK(WriteFileAtomically(path, content));
    EXPECT_THAT(ReadTokenFile(path),
                FailsWith("TOKEN_FILE_INVALID", Not(HasSubstr(text.substr(5)))))
        << content;
  }
}

TEST(TokenTest, ATokenGoesToNoOtherMachineInTheClear) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto directory, TempDirectory::Create());
  const std::string path = JoinPath(directory.path(), "token");
  ASSERT_OK(WriteFileAtomically(path, MakeTokenText("t1")));
  for (const char* address : {"lwq.example:7421", "10.0.0.1:7421", "127.0.0.1:1,10.0.0.1:1",
                              "localhost.example:1", "127.example:1", "dns:///lwq.example:7421"}) {
    EXPECT_THAT(WithToken(nullptr, path, address), FailsWith("TOKEN_IN_CLEAR", HasSubstr(address)));
    EXPECT_OK(WithToken(nullptr, "", address).status()) << "without a token it may";
    EXPECT_OK(
        WithToken(grpc::SslCredentials(grpc::SslCredentialsOptions()), path, address).status());
  }
  for (const char* address :
       {"unix:/run/lwq.sock", "127.0.0.1:1", "localhost:1", "[::1]:1", "127.0.0.1:1,localhost:2"}) {
    EXPECT_OK(WithToken(nullptr, path, address).status()) << address;
  }
  ASSERT_OK(WriteFileAtomically(path, "nothing"));
  EXPECT_THAT(WithToken(nullptr, path, "localhost:1"), FailsWith("TOKEN_FILE_INVALID", _));
}

}  // namespace
}  // namespace lwq::testing
