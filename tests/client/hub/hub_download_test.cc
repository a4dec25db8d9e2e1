// Models by name, against a hub on the loopback: what is fetched, and what becomes of every answer
// that is not as it should be.
#include "client/hub/hub_download.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/file.h"
#include "client/hub/http_get.h"
#include "gmock/gmock.h"
#include "tests/client/hub/fake_hub.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

using ::lwq::testing::FailsWith;
using ::lwq::testing::FakeHub;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class HubTest : public ::testing::Test {
 protected:
  HubTest() : directory_(*TempDirectory::Create()), hub_(FakeHub::Fresh()) {
    hub_.files = {{"config.json", "{\"a\": 1}"},
                  {"model.safetensors", std::string(100'000, 'w')},
                  {"tokenizer.json", "{}"},
                  {"pytorch_model.bin", "pickle"},
                  {"modeling.py", "code"},
                  {"README.md", "text"},
                  {"original/consolidated.00.safetensors", "twice"},
                  {"consolidated.safetensors", "twice"}};
    options_.endpoint = hub_.endpoint();
    options_.folder = directory_.path();
    options_.note = [this](const std::string& text) { notes_.push_back(text); };
  }
  absl::StatusOr<std::string> Download() { return DownloadModel(name_, options_); }
  static std::vector<std::string> FilesIn(const std::string& directory) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      names.push_back(entry.path().filename());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  int CountRequests(const std::string& part) const {
    int count = 0;
    for (const std::string& request : hub_.Requests()) count += absl::StrContains(request, part);
    return count;
  }

  TempDirectory directory_;
  FakeHub& hub_;
  HubName name_{.repository = "org/model"};
  HubOptions options_;
  std::vector<std::string> notes_;
};

TEST_F(HubTest, FetchesWhatLwqReadsAndNothingElse) {
  std::vector<int64_t> told;
  options_.progress = [&](int64_t done, int64_t total) {
    EXPECT_EQ(total, 100'010);
    told.push_back(done);
  };
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string directory, Download());
  EXPECT_THAT(FilesIn(directory),
              ElementsAre(".lwq-complete", "config.json", "model.safetensors", "tokenizer.json"));
  EXPECT_EQ(*ReadFile(JoinPath(directory, "model.safetensors"), 1 << 20),
            hub_.files["model.safetensors"]);
  EXPECT_EQ(told.back(), 100'010);
  EXPECT_TRUE(absl::StartsWith(directory, directory_.path()));
  // Once more: what is there is not fetched again.
  ASSERT_OK(Download());
  EXPECT_EQ(CountRequests("/resolve/"), 3);
}

TEST_F(HubTest, GoesOnWhereItWasCut) {
  hub_.files = {{"model.safetensors", std::string(100'000, 'w')}};
  hub_.cut_after = 40'000;
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string directory, Download());
  EXPECT_EQ(*ReadFile(JoinPath(directory, "model.safetensors"), 1 << 20),
            hub_.files["model.safetensors"]);
  EXPECT_THAT(hub_.Requests(), Contains(HasSubstr("bytes=40000-")));
}

TEST_F(HubTest, AServerWithoutRangesIsTakenFromTheBeginning) {
  hub_.files = {{"model.safetensors", std::string(50'000, 'a') + std::string(50'000, 'b')}};
  hub_.cut_after = 40'000;
  hub_.ignores_ranges = true;
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string directory, Download());
  EXPECT_EQ(*ReadFile(JoinPath(directory, "model.safetensors"), 1 << 20),
            hub_.files["model.safetensors"]);
}

TEST_F(HubTest, OtherBytesAreNotKept) {
  hub_.served_as["model.safetensors"] = std::string(100'000, 'x');
  EXPECT_THAT(Download(), FailsWith("DIGEST_MISMATCH", HasSubstr("model.safetensors")));
  // Small files are checked too, by git's name of them.
  hub_.served_as = {{"tokenizer.json", "[]"}};
  EXPECT_THAT(Download(), FailsWith("DIGEST_MISMATCH", HasSubstr("tokenizer.json")));
  hub_.served_as.clear();
  EXPECT_OK(Download());  // and nothing wrong was left behind
}

TEST_F(HubTest, MoreThanWasListedIsNotTaken) {
  hub_.served_as["model.safetensors"] = std::string(200'000, 'w');
  EXPECT_THAT(Download(), FailsWith("HUB_INVALID", HasSubstr("more came")));
}

TEST_F(HubTest, TheTokenGoesToTheEndpointAlone) {
  hub_.token = "secret";
  EXPECT_THAT(Download(), FailsWith("HUB_DENIED", HasSubstr("no token was sent")));
  options_.token = "secret";
  // "localhost" is another host than 127.0.0.1 to who follows a redirect.
  hub_.redirect_to =
      absl::StrCat("http://localhost", hub_.endpoint().substr(hub_.endpoint().rfind(':')));
  EXPECT_OK(Download());
  EXPECT_EQ(CountRequests("GET /cdn/"), 3);  // which refuse a token
  options_.endpoint = "http://hub.example";
  EXPECT_THAT(Download(), FailsWith("HUB_DENIED", HasSubstr("http://")));
}

TEST_F(HubTest, ABusyHubIsAskedAgain) {
  hub_.fail_for = 1;
  EXPECT_OK(Download());
}

TEST_F(HubTest, ANameThatIsNotThere) {
  name_.repository = "org/other";
  EXPECT_THAT(Download(), FailsWith("HUB_NOT_FOUND", HasSubstr("org/other")));
}

TEST_F(HubTest, NothingIsWrittenWhereThereIsNoRoom) {
  hub_.claimed_size = int64_t{1} << 49;
  EXPECT_THAT(Download(), FailsWith("STORAGE_FULL", HasSubstr("are to come")));
  EXPECT_EQ(CountRequests("/resolve/"), 0);
}

TEST_F(HubTest, NamesOfFilesAreNoPaths) {
  hub_.listed_as["model.safetensors"] = "../../model.safetensors";
  // It lies in a folder, which is another layout of the model: then there are no weights.
  EXPECT_THAT(Download(), FailsWith("WEIGHTS_MISSING", HasSubstr("safetensors")));
  hub_.listed_as["model.safetensors"] = "a\x01.safetensors";
  EXPECT_THAT(Download(), FailsWith("HUB_INVALID", HasSubstr("a file is called")));
  EXPECT_EQ(CountRequests("/resolve/"), 0);
}

TEST_F(HubTest, WithoutSafetensorsNothingIsFetched) {
  hub_.files = {{"config.json", "{}"}, {"pytorch_model.bin", "pickle"}};
  EXPECT_THAT(Download(), FailsWith("WEIGHTS_MISSING", HasSubstr("org/model")));
  EXPECT_EQ(CountRequests("/resolve/"), 0);
}

TEST_F(HubTest, WithoutTheHubACopyThatIsWholeIsUsed) {
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string directory, Download());
  options_.endpoint = "http://127.0.0.1:1";
  int asked = 0;
  options_.tries = 2;
  options_.may_go_on = [&] { return ++asked, absl::OkStatus(); };
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string again, Download());
  EXPECT_EQ(again, directory);
  EXPECT_THAT(notes_, Contains(HasSubstr("cannot be reached")));
  EXPECT_GT(asked, 0);
  std::filesystem::remove(JoinPath(directory, ".lwq-complete"));
  EXPECT_THAT(Download(), FailsWith("HUB_UNAVAILABLE", HasSubstr("127.0.0.1:1")));
}

TEST_F(HubTest, IsStoppedByItsUser) {
  options_.may_go_on = [] { return absl::CancelledError("Ctrl-C"); };
  EXPECT_EQ(Download().status().code(), absl::StatusCode::kCancelled);
}

TEST(HubListingTest, AnswersThatAreNoListings) {
  const HubName name{.repository = "org/model"};
  const std::string commit = FakeHub::kCommit;
  const auto with = [&](const std::string& entry) {
    return absl::StrCat(R"({"sha": ")", commit, R"(", "siblings": [)", entry, "]}");
  };
  for (const std::string& json :
       {std::string("<html>"), std::string("[]"), std::string("{}"),
        std::string(R"({"sha": "short", "siblings": []})"),
        absl::StrCat(R"({"sha": ")", commit, R"(", "siblings": 1})"),
        with(R"({"rfilename": "a.safetensors"})"),
        with(R"({"rfilename": "a.safetensors", "size": -1, "blobId": "0"})"),
        with(R"({"rfilename": "a.safetensors", "size": 1})"),
        with(R"({"rfilename": "a.safetensors", "size": 1, "lfs": {"sha256": "xyz"}})"),
        with(R"({"rfilename": "a.safetensors", "size": 18446744073709551615})")}) {
    EXPECT_THAT(ParseHubListing(name, json), FailsWith("HUB_INVALID", HasSubstr("org/model")))
        << json;
  }
}

}  // namespace
}  // namespace lwq::client
