#include "base/hashing_writer.h"

#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace lwq {
namespace {

// FIPS 180-4's example, written in pieces.
TEST(HashingWriterTest, TheDigestIsThatOfTheFile) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory scratch, TempDirectory::Create());
  const std::string path = JoinPath(scratch.path(), "file");
  for (const bool flushed : {true, false}) {
    LWQ_ASSERT_OK_AND_ASSIGN(const auto writer, HashingWriter::Create(path));
    ASSERT_OK(writer->Append(absl::string_view("a")));
    const uint8_t rest[] = {'b', 'c'};
    ASSERT_OK(writer->Append(absl::MakeConstSpan(rest)));
    EXPECT_EQ(writer->size(), 3);
    LWQ_ASSERT_OK_AND_ASSIGN(const std::string digest,
                             flushed ? writer->Finish() : writer->Close());
    EXPECT_EQ(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    LWQ_ASSERT_OK_AND_ASSIGN(const std::string content, ReadFile(path, 16));
    EXPECT_EQ(content, "abc");
  }
}

TEST(HashingWriterTest, AFolderThatIsNotThereIsAnError) {
  EXPECT_FALSE(HashingWriter::Create("/no/such/folder/file").ok());
}

}  // namespace
}  // namespace lwq
