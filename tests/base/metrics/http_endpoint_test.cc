#include "base/metrics/http_endpoint.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <set>
#include <string>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/few_descriptors.h"
#include "tests/testing/held_port.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsSubsetOf;
using ::testing::StartsWith;

int PortOf(const HttpEndpoint& endpoint) {
  int port = 0;
  EXPECT_TRUE(
      absl::SimpleAtoi(endpoint.address().substr(endpoint.address().rfind(':') + 1), &port));
  return port;
}

// All that comes back for these bytes; "" where nobody listens.
std::string Exchange(int port, const std::string& request) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
      ::send(fd, request.data(), request.size(), MSG_NOSIGNAL) > 0) {
    char buffer[4096];
    for (ssize_t n; (n = ::recv(fd, buffer, sizeof buffer, 0)) > 0;) answer.append(buffer, n);
  }
  ::close(fd);
  return answer;
}

std::string Get(int port, const std::string& path) {
  return Exchange(port, absl::StrCat("GET ", path, " HTTP/1.0\r\n\r\n"));
}

TEST(HttpEndpointTest, AnswersToThreePathsAndToNoOther) {
  std::atomic<bool> ready{false};
  LWQ_ASSERT_OK_AND_ASSIGN(
      const auto endpoint,
      HttpEndpoint::Start("127.0.0.1:0",
                          {[] { return std::string("lwq_x 1\n"); }, [&] { return ready.load(); }}));
  const int port = PortOf(*endpoint);
  EXPECT_THAT(Get(port, "/metrics"), AllOf(StartsWith("HTTP/1.1 200 "), EndsWith("\nlwq_x 1\n")));
  EXPECT_THAT(Get(port, "/livez"), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Get(port, "/readyz"), StartsWith("HTTP/1.1 503 "));
  ready = true;
  EXPECT_THAT(Get(port, "/readyz?x=1"), StartsWith("HTTP/1.1 200 "));
  for (const char* path : {"/", "/x", "/../etc/passwd", "/metrics/x"}) {
    EXPECT_THAT(Get(port, path), AllOf(StartsWith("HTTP/1.1 404 "), HasSubstr("/readyz"))) << path;
  }
  EXPECT_THAT(Exchange(port, "GARBAGE\r\n\r\n"), HasSubstr(" 400 "));
  EXPECT_THAT(HttpEndpoint::Start(endpoint->address(), {}), FailsWith("ADDRESS_IN_USE", _));
}

// Whoever begins a request and does not end it has a thread of the endpoint for as long.
TEST(HttpEndpointTest, ProbesAreAnsweredBesideManyClientsThatStall) {
  LWQ_ASSERT_OK_AND_ASSIGN(const auto endpoint, HttpEndpoint::Start("127.0.0.1:0", {}));
  const int port = PortOf(*endpoint);
  ManySockets stalled(40);
  stalled.Connect(port);
  stalled.Send("GET /metrics HTTP/1.1\r\nHost: x\r\n");
  const absl::Time begin = absl::Now();
  EXPECT_THAT(Get(port, "/livez"), StartsWith("HTTP/1.1 200 "));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(4));
}

// Probes ask from the first moment on, and must not be answered by the library, which looks for
// files.
TEST(HttpEndpointTest, AnswersRightlyFromTheFirstMoment) {
  const HeldPort held;
  const int port = held.port();
  std::atomic<bool> stop{false};
  std::set<std::string> answers;
  std::thread probe([&] {
    while (!stop) answers.insert(Get(port, "/livez").substr(0, 13));
  });
  for (int i = 0; i < 5; ++i) {
    EXPECT_OK(HttpEndpoint::Start(absl::StrCat("127.0.0.1:", port), {}).status());
  }
  stop = true;
  probe.join();
  EXPECT_THAT(answers, IsSubsetOf({"", "HTTP/1.1 200 "}));
}

}  // namespace
}  // namespace lwq::testing
