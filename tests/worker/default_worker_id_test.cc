#include "worker/default_worker_id.h"

#include <regex>

#include "gtest/gtest.h"

namespace lwq::testing {
namespace {

TEST(DefaultWorkerIdTest, TheHostsNameIsKeptWhereItCanBe) {
  EXPECT_EQ(DefaultWorkerId("node-7", 12), "node-7-12");
  EXPECT_EQ(DefaultWorkerId("GPU_Box.example.com", 12), "gpu-box-example-com-12");
}

TEST(DefaultWorkerIdTest, AnyHostGivesAnIdThatServersTake) {
  // The rule of server/service/validation.cc.
  const std::regex id("[a-z]([a-z0-9-]{0,61}[a-z0-9])?");
  for (const std::string& host : {std::string(""), std::string("3f2ac91d0b77"), std::string("-"),
                                  std::string("\xc3\xa4.\n"), std::string(255, 'X')}) {
    EXPECT_TRUE(std::regex_match(DefaultWorkerId(host, 4'194'304), id)) << host;
  }
}

}  // namespace
}  // namespace lwq::testing
