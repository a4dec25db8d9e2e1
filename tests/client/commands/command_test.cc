// Lines that lwqctl answers without a server, as a user gives them: what is refused, in which form,
// and what is kept.
#include <stdlib.h>

#include <sstream>

#include "absl/strings/str_split.h"
#include "base/file.h"
#include "client/commands/command.h"
#include "client/contexts.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

struct Answer {
  int code = 0;
  std::string out, err;
};

class CommandTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ::setenv("XDG_CONFIG_HOME", directory_.path().c_str(), 1);
    for (const char* name : {"LWQ_OUTPUT", "LWQ_JSON", "LWQ_SERVER", "LWQ_CONTEXT"}) {
      ::unsetenv(name);
    }
  }
  void TearDown() override {
    ::unsetenv("LWQ_OUTPUT");
    ::unsetenv("XDG_CONFIG_HOME");
  }
  // Words with single spaces between.
  Answer Run(const std::string& line) const {
    std::ostringstream out, err;
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    const int code = RunProgram(words, &out, &err);
    return {code, out.str(), err.str()};
  }

  const TempDirectory directory_ = *TempDirectory::Create();
};

TEST_F(CommandTest, AContextIsNotReplacedUnasked) {
  ASSERT_EQ(Run("context add prod --server first:1").code, 0);
  const Answer again = Run("context add prod --server second:2");
  EXPECT_EQ(again.code, 8);
  EXPECT_THAT(again.err, AllOf(HasSubstr("ALREADY_EXISTS"), HasSubstr("first:1"),
                               HasSubstr("--force, which replaces")));
  EXPECT_EQ(ReadContexts(ContextsPath())->all.at("prod").server, "first:1");
  EXPECT_EQ(Run("context add prod --server second:2 --force").code, 0);
  EXPECT_EQ(ReadContexts(ContextsPath())->all.at("prod").server, "second:2");
}

TEST_F(CommandTest, WithJsonEachErrorIsJson) {
  const std::string json = "{\"error\":{";
  for (const char* line :
       {"show --json", "-o json show", "--json jobs --foo", "jobs -o=json --foo", "qantize --json",
        "jobs --output=json --state FAILD", "jobs --foo -ojson"}) {
    const Answer answer = Run(line);
    EXPECT_EQ(answer.code, 2) << line;
    EXPECT_THAT(answer.err, StartsWith(json)) << line;
  }
  ::setenv("LWQ_OUTPUT", "json", 1);
  EXPECT_THAT(Run("jobs --foo").err, StartsWith(json));
  EXPECT_THAT(Run("show").err, StartsWith(json));
}

TEST_F(CommandTest, InTheOtherFormsErrorsAreText) {
  for (const char* form : {"", " -o yaml", " -o name", " -o wide"}) {
    for (const char* line : {"context show nowhere", "jobs --foo", "show"}) {
      EXPECT_THAT(Run(absl::StrCat(line, form)).err, StartsWith("lwqctl: ")) << line << form;
    }
  }
}

TEST_F(CommandTest, FlagsWithoutACommandAreSaidToBeSo) {
  for (const char* line : {"--data-dir", "--data-dir d", "--json", "-o name"}) {
    const Answer answer = Run(line);
    EXPECT_EQ(answer.code, 2) << line;
    EXPECT_THAT(answer.err, HasSubstr("no command was given")) << line;
  }
}

TEST_F(CommandTest, AServerThatNobodyNamedIsSaidByItsContext) {
  ASSERT_EQ(Run("context add prod --server 127.0.0.1:1").code, 0);
  ASSERT_EQ(Run("context use prod").code, 0);
  EXPECT_THAT(Run("workers --timeout 1").err, HasSubstr("context prod (in use): "));
  EXPECT_THAT(Run("workers --timeout 1 --server 127.0.0.1:1").err, Not(HasSubstr("prod")));
}

TEST_F(CommandTest, AWordThatIsNearlyOneIsRecognized) {
  EXPECT_THAT(Run("qantize m").err, HasSubstr("did you mean \"quantize\"?"));
  EXPECT_THAT(Run("help jbs").err, HasSubstr("did you mean \"jobs\"?"));
  EXPECT_THAT(Run("quantize m --budgt 4bpw").err,
              HasSubstr("no flag --budgt here; did you mean --budget?"));
  EXPECT_THAT(Run("quantize m --budgt=4bpw").err, HasSubstr("did you mean --budget?"));
  EXPECT_THAT(Run("artifact lst").err, HasSubstr("did you mean list?"));
  EXPECT_THAT(Run("jobs --state FAILD").err,
              AllOf(HasSubstr("QUEUED, RUNNING"), HasSubstr("did you mean FAILED?")));
  EXPECT_THAT(Run("xyzzy").err, Not(HasSubstr("did you mean")));
}

}  // namespace
}  // namespace lwq::client
