#include "base/mapping_guard.h"

#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>

#include "base/file.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

int64_t Sum(const MappedFile& file) {
  return std::accumulate(file.bytes().begin(), file.bytes().end(), int64_t{0});
}

class MappingGuardTest : public ::testing::Test {
 protected:
  void SetUp() override {
    LWQ_ASSERT_OK_AND_ASSIGN(auto directory, TempDirectory::Create());
    directory_ = std::make_unique<TempDirectory>(std::move(directory));
    path_ = JoinPath(directory_->path(), "f");
    page_ = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    ASSERT_OK(WriteFileAtomically(path_, std::string(3 * page_, '\1')));
  }
  std::unique_ptr<TempDirectory> directory_;
  std::string path_;
  size_t page_ = 0;
};

TEST_F(MappingGuardTest, PagesThatAreGoneReadAsZerosAndAreCounted) {
  CatchLostPages();
  LWQ_ASSERT_OK_AND_ASSIGN(const auto file, MappedFile::Open(path_));
  const int64_t before = NumLostPages();
  EXPECT_EQ(Sum(*file), static_cast<int64_t>(3 * page_));
  EXPECT_EQ(NumLostPages(), before);
  ASSERT_EQ(::truncate(path_.c_str(), static_cast<off_t>(page_)), 0);
  EXPECT_EQ(Sum(*file), static_cast<int64_t>(page_));
  EXPECT_EQ(NumLostPages(), before + 2);
}

TEST_F(MappingGuardTest, OtherFaultsEndTheProcessAsEver) {
  CatchLostPages();
  LWQ_ASSERT_OK_AND_ASSIGN(const auto file, MappedFile::Open(path_));
  UnguardMapping(file->bytes().data());
  ASSERT_EQ(::truncate(path_.c_str(), 0), 0);
  // What was read has to be used, or nothing would be read.
  EXPECT_EXIT(std::exit(static_cast<int>(Sum(*file))), ::testing::KilledBySignal(SIGBUS), "");
}

}  // namespace
}  // namespace lwq
