#include "client/contexts.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "base/file.h"
#include "client/session.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::HasSubstr;

// With a home of its own and no variables of ours.
class ContextsTest : public ::testing::Test {
 protected:
  ContextsTest() : home_(*TempDirectory::Create()) {
    ::setenv("XDG_CONFIG_HOME", JoinPath(home_.path(), "config").c_str(), 1);
    ::unsetenv("LWQ_SERVER");
    ::unsetenv("LWQ_CONTEXT");
  }
  ~ContextsTest() override {
    ::unsetenv("XDG_CONFIG_HOME");
    ::unsetenv("LWQ_SERVER");
    ::unsetenv("LWQ_CONTEXT");
  }
  static mode_t ModeOf(const std::string& path) {
    struct stat info = {};
    EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
    return info.st_mode & 0777;
  }
  static std::string ServerOf(const Flags& flags) { return ResolveConnection(flags)->server; }

  TempDirectory home_;
};

Contexts Two() {
  Contexts contexts;
  contexts.all["prod"] = {.server = "prod:1", .tls = {.ca_file = "/ca", .cert_file = "/me"}};
  contexts.all["test"] = {.server = "test:1"};
  return contexts;
}

TEST_F(ContextsTest, AreKeptForTheUserAlone) {
  Contexts contexts = Two();
  contexts.current = "prod";
  ASSERT_OK(WriteContexts(ContextsPath(), contexts));
  EXPECT_EQ(ModeOf(ContextsPath()), 0600u);
  EXPECT_EQ(ModeOf(ConfigDirectory()), 0700u);
  LWQ_ASSERT_OK_AND_ASSIGN(const Contexts read, ReadContexts(ContextsPath()));
  EXPECT_EQ(read.current, "prod");
  EXPECT_EQ(read.all.at("prod").tls.cert_file, "/me");
  EXPECT_EQ(read.all.at("test").server, "test:1");
  EXPECT_THAT(read.Find("dev"), FailsWith("CONTEXT_UNKNOWN", HasSubstr("prod, test")));
}

TEST_F(ContextsTest, WithoutAFileThereAreNone) {
  LWQ_ASSERT_OK_AND_ASSIGN(const Contexts none, ReadContexts(ContextsPath()));
  EXPECT_TRUE(none.all.empty());
  EXPECT_EQ(ServerOf(Flags()), "");
}

TEST_F(ContextsTest, WhatIsNoSuchFileIsRefused) {
  ASSERT_OK(WriteContexts(ContextsPath(), Two()));
  for (const char* text : {"not json", "[]", R"({"contexts": {"a": {}}})", R"({"contexts": 1})"}) {
    ASSERT_OK(WriteFileAtomically(ContextsPath(), text));
    EXPECT_THAT(ReadContexts(ContextsPath()),
                FailsWith("CONTEXTS_INVALID", HasSubstr("contexts.json")))
        << text;
  }
}

// --server, --context, $LWQ_SERVER, $LWQ_CONTEXT, the one in use: each goes before those after it.
TEST_F(ContextsTest, Precedence) {
  Contexts contexts = Two();
  contexts.current = "test";
  ASSERT_OK(WriteContexts(ContextsPath(), contexts));
  EXPECT_EQ(ServerOf(Flags()), "test:1");
  ::setenv("LWQ_CONTEXT", "prod", 1);
  EXPECT_EQ(ServerOf(Flags()), "prod:1");
  ::setenv("LWQ_SERVER", "variable:1", 1);
  EXPECT_EQ(ServerOf(Flags()), "variable:1");
  Flags flags;
  flags.Set("context", "prod");
  EXPECT_EQ(ServerOf(flags), "prod:1");
  EXPECT_EQ(ResolveConnection(flags)->tls.ca_file, "/ca");
  flags.Set("tls-ca", "/mine");
  EXPECT_EQ(ResolveConnection(flags)->tls.ca_file, "/mine");
  EXPECT_EQ(ResolveConnection(flags)->tls.cert_file, "/me");
  flags.Set("server", "line:1");
  EXPECT_EQ(ServerOf(flags), "line:1");
  EXPECT_EQ(ResolveConnection(flags)->tls.cert_file, "");  // another server's is not sent there
  Flags local;
  local.Set("context", "local");
  EXPECT_EQ(ServerOf(local), "");
}

}  // namespace
}  // namespace lwq::client
