#include "client/all_pages.h"

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_service.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Page N has the job j-N, and page `last` is the last.
std::function<grpc::Status(const v1::ListJobsRequest&, v1::ListJobsResponse*)> PagesTo(
    int last, std::vector<std::string>* tokens) {
  return [last, tokens](const v1::ListJobsRequest& request, v1::ListJobsResponse* response) {
    tokens->push_back(request.page_token());
    int page = 0;
    if (!request.page_token().empty() && !absl::SimpleAtoi(request.page_token(), &page)) {
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no token of a page");
    }
    response->add_jobs()->set_name(absl::StrCat("jobs/j-", page));
    if (page < last) response->set_next_page_token(absl::StrCat(page + 1));
    return grpc::Status::OK;
  };
}

TEST(AllPagesTest, TheElementsOfAllPagesAreThereInTheirOrder) {
  FakeServer server;
  std::vector<std::string> tokens;
  server.jobs.on_list = PagesTo(2, &tokens);
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::ListJobsResponse all,
                           AllPages(server.client(), &Client::ListJobs, v1::ListJobsRequest()));
  ASSERT_EQ(all.jobs_size(), 3);
  EXPECT_EQ(all.jobs(0).name(), "jobs/j-0");
  EXPECT_EQ(all.jobs(2).name(), "jobs/j-2");
  EXPECT_EQ(all.next_page_token(), "");
  EXPECT_THAT(tokens, ElementsAre("", "1", "2"));
}

TEST(AllPagesTest, FiltersAreAskedForWithEachPage) {
  FakeServer server;
  std::vector<std::string> filters;
  server.jobs.on_list = [&](const v1::ListJobsRequest& request, v1::ListJobsResponse* response) {
    filters.push_back(request.label_key());
    if (request.page_token().empty()) response->set_next_page_token("second");
    return grpc::Status::OK;
  };
  v1::ListJobsRequest request;
  request.set_label_key("team");
  ASSERT_OK(AllPages(server.client(), &Client::ListJobs, request).status());
  EXPECT_THAT(filters, ElementsAre("team", "team"));
}

TEST(AllPagesTest, APageThatIsFollowedByItselfIsRefused) {
  FakeServer server;
  int asked = 0;
  server.jobs.on_list = [&](const v1::ListJobsRequest&, v1::ListJobsResponse* response) {
    ++asked;
    response->set_next_page_token("again");
    return grpc::Status::OK;
  };
  EXPECT_THAT(AllPages(server.client(), &Client::ListJobs, v1::ListJobsRequest()),
              FailsWith("PAGE_TOKEN_INVALID", HasSubstr("that page again")));
  EXPECT_EQ(asked, 2);
}

TEST(AllPagesTest, PagesWithoutEndAreRefused) {
  FakeServer server;
  std::vector<std::string> tokens;
  server.jobs.on_list = PagesTo(4, &tokens);
  const auto take = [](const v1::ListJobsResponse&) {};
  EXPECT_THAT(EachPage(server.client(), &Client::ListJobs, v1::ListJobsRequest(), take, 4),
              FailsWith("PAGE_TOKEN_INVALID", HasSubstr("without end")));
  EXPECT_EQ(tokens.size(), 4u);
  EXPECT_OK(EachPage(server.client(), &Client::ListJobs, v1::ListJobsRequest(), take, 5));
}

TEST(AllPagesTest, AnErrorOfALaterPageIsTheLists) {
  FakeServer server;
  server.jobs.on_list = [](const v1::ListJobsRequest& request, v1::ListJobsResponse* response) {
    if (!request.page_token().empty()) {
      return grpc::Status(grpc::StatusCode::NOT_FOUND, "it was there");
    }
    response->set_next_page_token("second");
    return grpc::Status::OK;
  };
  EXPECT_TRUE(absl::IsNotFound(
      AllPages(server.client(), &Client::ListJobs, v1::ListJobsRequest()).status()));
}

}  // namespace
}  // namespace lwq::client
