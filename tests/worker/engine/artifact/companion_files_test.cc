// Which files of a model directory go into its artifacts, and that links let nothing else in.
#include "worker/engine/artifact/companion_files.h"

#include <filesystem>
#include <string>

#include "base/file.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "worker/engine/artifact/artifact_writer.h"

namespace lwq {
namespace {

namespace fs = std::filesystem;
using testing::FailsWith;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CompanionFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory made, TempDirectory::Create());
    root_ = std::make_unique<TempDirectory>(std::move(made));
    ASSERT_OK(MakeDirectories(Path("model")));
    ASSERT_OK(MakeDirectories(Path("out")));
    Write("model/tokenizer.json", "{}");
  }
  std::string Path(const std::string& name) const { return JoinPath(root_->path(), name); }
  void Write(const std::string& name, const std::string& text) {
    ASSERT_OK(WriteFileAtomically(Path(name), text));
  }

  std::unique_ptr<TempDirectory> root_;
};

TEST_F(CompanionFilesTest, OnlyTokenizerAndTextFilesAreCarriedAlong) {
  for (const char* name :
       {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
        "generation_config.json", "vocab.json", "merges.txt", "chat_template.jinja",
        "qwen.tiktoken", "LICENSE", "added_tokens.json", "LICENSE.txt", "USE_POLICY.md"}) {
    EXPECT_TRUE(IsCompanionFile(name)) << name;
  }
  for (const char* name :
       {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "tokenizer.py",
        "modeling_llama.py", "tokenizer.pkl", "optimizer.pt", "a.pth", ".tokenizer.json",
        "config.json", "lwq-manifest.json", "held-out.txt", "choices.jsonl", "tokenizer.bin",
        "tokenizer", "../tokenizer.json", "license.py", ""}) {
    EXPECT_FALSE(IsCompanionFile(name)) << name;
  }
}

TEST_F(CompanionFilesTest, AFileThatALinkLeadsToOutsideTheModelIsNotCopied) {
  Write("secret", "of the worker");
  fs::create_symlink(Path("secret"), Path("model/LICENSE"));
  EXPECT_THAT(ListCompanionFiles(Path("model")),
              FailsWith("LINK_OUTSIDE_MODEL", HasSubstr("LICENSE is a link")));
  EXPECT_THAT(CopyCompanionFiles(Path("model"), Path("out")),
              FailsWith("LINK_OUTSIDE_MODEL", HasSubstr("LICENSE")));
  EXPECT_FALSE(FileExists(Path("out/LICENSE")));
}

TEST_F(CompanionFilesTest, ALinkIsFollowedToItsEnd) {
  Write("secret", "of the worker");
  fs::create_symlink(Path("secret"), Path("model/inside"));
  fs::create_symlink("inside", Path("model/LICENSE"));
  EXPECT_THAT(ListCompanionFiles(Path("model")), FailsWith("LINK_OUTSIDE_MODEL", HasSubstr("")));
}

TEST_F(CompanionFilesTest, ALinkOutByTheWayOfAFolderIsNoBetter) {
  ASSERT_OK(MakeDirectories(Path("model-secrets")));
  Write("model-secrets/key", "of the worker");  // its folder's name begins like the model's
  fs::create_symlink("../model-secrets/key", Path("model/NOTICE"));
  EXPECT_THAT(ListCompanionFiles(Path("model")), FailsWith("LINK_OUTSIDE_MODEL", HasSubstr("")));
}

TEST_F(CompanionFilesTest, ALinkThatLeadsNowhereIsTold) {
  fs::create_symlink("gone", Path("model/LICENSE"));
  EXPECT_THAT(ListCompanionFiles(Path("model")), FailsWith("LINK_OUTSIDE_MODEL", HasSubstr("")));
}

TEST_F(CompanionFilesTest, ALinkWithinTheModelIsItsFile) {
  ASSERT_OK(MakeDirectories(Path("model/data")));
  Write("model/data/license", "free");
  fs::create_symlink("data/license", Path("model/LICENSE"));
  fs::create_symlink(Path("model"), Path("latest"));  // and the model's directory may be a link
  EXPECT_THAT(*ListCompanionFiles(Path("model")), ElementsAre("LICENSE", "tokenizer.json"));
  EXPECT_THAT(*ListCompanionFiles(Path("latest")), ElementsAre("LICENSE", "tokenizer.json"));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto files, CopyCompanionFiles(Path("model"), Path("out")));
  EXPECT_EQ(files.size(), 2u);
  EXPECT_FALSE(fs::is_symlink(Path("out/LICENSE")));
}

// The layout that huggingface_hub leaves: snapshots of links, each to its model's blobs.
TEST_F(CompanionFilesTest, ASnapshotOfHuggingFacesCacheIsAModelDirectory) {
  ASSERT_OK(MakeDirectories(Path("hub/models--a--b/blobs")));
  ASSERT_OK(MakeDirectories(Path("hub/models--a--b/snapshots/0123abcd")));
  Write("hub/models--a--b/blobs/deadbeef", "{}");
  const std::string snapshot = Path("hub/models--a--b/snapshots/0123abcd");
  fs::create_symlink("../../blobs/deadbeef", JoinPath(snapshot, "tokenizer.json"));
  EXPECT_THAT(*ListCompanionFiles(snapshot), ElementsAre("tokenizer.json"));
  // Another model's are not its own.
  ASSERT_OK(MakeDirectories(Path("hub/models--c--d/blobs")));
  Write("hub/models--c--d/blobs/deadbeef", "{}");
  fs::create_symlink("../../../models--c--d/blobs/deadbeef", JoinPath(snapshot, "LICENSE"));
  EXPECT_THAT(ListCompanionFiles(snapshot), FailsWith("LINK_OUTSIDE_MODEL", HasSubstr("LICENSE")));
}

TEST_F(CompanionFilesTest, WhatIsNoRegularFileIsPassedOver) {
  ASSERT_OK(MakeDirectories(Path("model/vocab.json")));
  ASSERT_OK(MakeDirectories(Path("model/data")));
  fs::create_symlink("data", Path("model/merges.txt"));
  EXPECT_THAT(*ListCompanionFiles(Path("model")), ElementsAre("tokenizer.json"));
  LWQ_ASSERT_OK_AND_ASSIGN(const auto files, CopyCompanionFiles(Path("model"), Path("out")));
  EXPECT_EQ(files.size(), 1u);
}

}  // namespace
}  // namespace lwq
