// The S3 store against moto's server, which other people wrote. It runs with $LWQ_PEERS_PYTHON or
// the venv that scripts/make_peers_venv.sh makes; without one the cases are skipped and say so.
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "server/blob/http_client.h"
#include "server/blob/s3_blob_store.h"
#include "tests/server/blob/blob_store_conformance.h"
#include "tests/testing/status_matchers.h"

namespace lwq::testing {
namespace {

constexpr char kServe[] =
    "import sys\n"
    "from moto.server import ThreadedMotoServer\n"
    "server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)\n"
    "server.start()\n"
    "print('%s:%d' % server.get_host_and_port(), flush=True)\n"
    "sys.stdin.read()\n";

std::string Python() {
  const char* chosen = ::getenv("LWQ_PEERS_PYTHON");
  return chosen != nullptr ? chosen : LWQ_SOURCE_DIR "/.venv-peers/bin/python";
}

// "127.0.0.1:port" of a server that ends with this process; "" when there is no moto.
const std::string& MotoAddress() {
  static const std::string& address = *new std::string([]() -> std::string {
    int to_child[2], from_child[2];
    if (!FileExists(Python()) || ::pipe(to_child) != 0 || ::pipe(from_child) != 0) return "";
    if (::fork() == 0) {
      ::dup2(to_child[0], 0);
      ::dup2(from_child[1], 1);
      for (int fd : {to_child[0], to_child[1], from_child[0], from_child[1]}) ::close(fd);
      ::setenv("S3_UPLOAD_PART_MIN_SIZE", "1", 1);
      ::execl(Python().c_str(), "python", "-c", kServe, nullptr);
      ::_exit(127);
    }
    ::close(to_child[0]);
    ::close(from_child[1]);
    std::string line;
    char c = 0;
    while (::read(from_child[0], &c, 1) == 1 && c != '\n') line += c;
    return line;
  }());
  return address;
}

const S3Credentials kCredentials = {"id", "secret", ""};

class MotoMedium : public BlobMedium {
 public:
  static std::unique_ptr<BlobMedium> Make() {
    if (MotoAddress().empty()) return nullptr;
    static int num_buckets = 0;
    return std::make_unique<MotoMedium>(absl::StrCat("bucket-", ++num_buckets));
  }
  explicit MotoMedium(const std::string& bucket) { MakeBucket(bucket); }

  void MakeBucket(const std::string& bucket) {
    LWQ_ASSERT_OK_AND_ASSIGN(
        options_.location,
        ParseS3Url(absl::StrCat("s3://", bucket, "/lwq?endpoint=http://", MotoAddress())));
    options_.credentials = kCredentials;
    options_.part_bytes = 1 << 16;
    const S3Target target{"http", MotoAddress(), "/" + bucket, {}};
    LWQ_ASSERT_OK_AND_ASSIGN(
        const HttpAnswer made,
        HttpClient().Send(
            {"PUT",
             SignedUrl("PUT", target, {}, kCredentials, "us-east-1", absl::Now(), absl::Minutes(5)),
             {},
             "",
             1 << 20}));
    ASSERT_EQ(made.code, 200) << made.body;
    Reopen();
  }

  BlobStore& store() override { return *blobs_; }
  void Reopen() override { LWQ_ASSERT_OK_AND_ASSIGN(blobs_, S3BlobStore::Open(options_)); }
  void FlipBit(const BlobId& id, int64_t offset) override {
    S3Client client(options_.location, kCredentials, Clock::Real());
    const std::string key = "sha256/" + id.sha256;
    LWQ_ASSERT_OK_AND_ASSIGN(std::string content, client.Get(key, 0, id.size_bytes));
    content[static_cast<size_t>(offset)] ^= 1;
    ASSERT_OK(client.Put(key, content, S3Checksum(content)));
  }
  int64_t capacity_bytes() const override { return 0; }

 private:
  S3BlobOptions options_;
  std::unique_ptr<S3BlobStore> blobs_;
};

INSTANTIATE_TEST_SUITE_P(Moto, BlobStoreConformance, ::testing::Values(&MotoMedium::Make));

TEST(S3BlobStoreMotoTest, PartsBecomeABlobAndGrantsWork) {
  auto medium = MotoMedium::Make();
  if (medium == nullptr) GTEST_SKIP() << "moto is not installed here";
  BlobStore& blobs = medium->store();
  std::string content;
  for (int i = 0; content.size() < 300'000; ++i) absl::StrAppend(&content, i, "/");
  const BlobId id = BlobIdOf(content);
  ASSERT_OK(blobs.OpenWrite(id).value()->Append(content.substr(0, 150'000)));
  medium->Reopen();
  BlobStore& again = medium->store();
  LWQ_ASSERT_OK_AND_ASSIGN(auto writer, again.OpenWrite(id));
  EXPECT_EQ(writer->committed_bytes(), 131'072);
  ASSERT_OK(writer->Append(content.substr(131'072)));
  ASSERT_OK(writer->Finish());
  const BlobGrant read = *again.GrantRead(id, absl::Minutes(5));
  LWQ_ASSERT_OK_AND_ASSIGN(const HttpAnswer got,
                           HttpClient().Send({"GET", read.url, read.headers, "", 1 << 20}));
  EXPECT_TRUE(got.body == content);
  const BlobId granted = BlobIdOf("granted");
  const BlobGrant write = *again.GrantWrite(granted, absl::Minutes(5));
  LWQ_ASSERT_OK_AND_ASSIGN(const HttpAnswer put, HttpClient().Send({"PUT", write.url, write.headers,
                                                                    "granted", 1 << 20}));
  EXPECT_EQ(put.code, 200);
  EXPECT_TRUE(*again.Has(granted));
}

}  // namespace
}  // namespace lwq::testing
