#include <unistd.h>

#include "base/hash.h"
#include "client/download.h"
#include "client/upload.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_service.h"
#include "tests/testing/status_matchers.h"

namespace lwq::client {
namespace {

using ::lwq::testing::FailsWith;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kContent[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJ";

v1::Artifact ArtifactOf(FakeServer* server, const std::map<std::string, std::string>& files) {
  server->artifacts.files = files;
  v1::Artifact artifact;
  artifact.set_name("artifacts/a-1");
  for (const auto& [name, content] : files) {
    v1::NamedBlob* file = artifact.add_files();
    file->set_name(name);
    file->mutable_blob()->set_sha256(Sha256Hex(content));
    file->mutable_blob()->set_size_bytes(static_cast<int64_t>(content.size()));
  }
  return artifact;
}

std::string Content(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path, 1 << 20);
  return text.ok() ? *text : text.status().ToString();
}

TEST(DownloadTest, GoesOnFromWhereAStreamBroke) {
  FakeServer server;
  const v1::Artifact artifact = ArtifactOf(&server, {{"w", kContent}, {"empty", ""}});
  server.artifacts.break_after = 2;
  server.artifacts.breaks = 1;
  ASSERT_OK(DownloadArtifact(server.client(), artifact, server.File("d")));
  EXPECT_EQ(Content(server.File("d/w")), kContent);
  EXPECT_EQ(Content(server.File("d/empty")), "");
  EXPECT_THAT(server.artifacts.offsets, ElementsAre(0, 20));
}

TEST(DownloadTest, UsesWhatAnEarlierCommandLeftAndRemovesStrangers) {
  FakeServer server;
  const v1::Artifact artifact = ArtifactOf(&server, {{"w", kContent}, {"x", "whole"}});
  ASSERT_OK(MakeDirectories(server.File("d")));
  ASSERT_OK(WriteFileAtomically(server.File("d/w.partial"), std::string(kContent, 30)));
  ASSERT_OK(WriteFileAtomically(server.File("d/x"), "whole"));
  ASSERT_OK(WriteFileAtomically(server.File("d/stranger"), "?"));
  ASSERT_OK(DownloadArtifact(server.client(), artifact, server.File("d")));
  EXPECT_THAT(server.artifacts.offsets, ElementsAre(30));
  EXPECT_THAT(*ListDirectory(server.File("d")), ElementsAre("w", "x"));
}

TEST(DownloadTest, ADiskThatIsFullIsCalledSoAndWhatCameStays) {
  FakeServer server;
  const v1::Artifact artifact = ArtifactOf(&server, {{"w", kContent}});
  ASSERT_OK(MakeDirectories(server.File("d")));
  ASSERT_EQ(::symlink("/dev/full", server.File("d/w.partial").c_str()), 0);
  EXPECT_THAT(DownloadArtifact(server.client(), artifact, server.File("d")),
              FailsWith("STORAGE_FULL", HasSubstr("the same command goes on from it")));
  EXPECT_TRUE(FileExists(server.File("d/w.partial")));
}

TEST(DownloadTest, ADamagedPartialFileIsFetchedAgain) {
  FakeServer server;
  const v1::Artifact artifact = ArtifactOf(&server, {{"w", kContent}});
  ASSERT_OK(MakeDirectories(server.File("d")));
  ASSERT_OK(WriteFileAtomically(server.File("d/w.partial"), std::string(30, '#')));
  ASSERT_OK(DownloadArtifact(server.client(), artifact, server.File("d")));
  EXPECT_EQ(Content(server.File("d/w")), kContent);
  EXPECT_THAT(server.artifacts.offsets, ElementsAre(30, 0));
}

TEST(DownloadTest, BytesThatDoNotHaveTheDigestAreRefusedAndLeaveNothing) {
  FakeServer server;
  const v1::Artifact artifact = ArtifactOf(&server, {{"w", kContent}});
  server.artifacts.files["w"][3] = '!';
  EXPECT_THAT(DownloadArtifact(server.client(), artifact, server.File("d")),
              FailsWith("DIGEST_MISMATCH", HasSubstr("w")));
  EXPECT_THAT(*ListDirectory(server.File("d")), ElementsAre());
}

TEST(DownloadTest, MoreBytesThanNamedAreRefused) {
  FakeServer server;
  const v1::Artifact artifact = ArtifactOf(&server, {{"w", kContent}});
  server.artifacts.files["w"] += "more";
  EXPECT_THAT(DownloadArtifact(server.client(), artifact, server.File("d")),
              FailsWith("OFFSET_MISMATCH", HasSubstr("expected offset 40 of 46")));
}

TEST(DownloadTest, NamesThatArePathsAreRefused) {
  FakeServer server;
  for (const char* name : {"../w", "/etc/passwd", "a/b", "", "..", "w.partial"}) {
    const v1::Artifact artifact = ArtifactOf(&server, {{name, kContent}});
    EXPECT_THAT(DownloadArtifact(server.client(), artifact, server.File("d")),
                FailsWith("ARTIFACT_FILE_NAME", HasSubstr("plain name")));
  }
  EXPECT_FALSE(FileExists(server.File("w")));
}

TEST(PublishTest, AppearsInOneStepAndNeverOverSomething) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory directory, TempDirectory::Create());
  const std::string from = JoinPath(directory.path(), "from");
  const std::string to = JoinPath(directory.path(), "deep/to");
  ASSERT_OK(MakeDirectories(from));
  ASSERT_OK(WriteFileAtomically(JoinPath(from, "w"), "x"));
  ASSERT_OK(MakeDirectories(to));  // an empty one may be there
  ASSERT_OK(PublishDirectory(from, to));
  EXPECT_EQ(Content(JoinPath(to, "w")), "x");
  EXPECT_FALSE(FileExists(from));
  ASSERT_OK(MakeDirectories(from));
  EXPECT_THAT(PublishDirectory(from, to), FailsWith("OUTPUT_EXISTS", HasSubstr("not an empty")));
  EXPECT_EQ(Content(JoinPath(to, "w")), "x");
}

TEST(PublishTest, AFileAppearsWithItsProofBesideIt) {
  FakeServer server;
  const std::string staging = server.File("staging"), out = server.File("new/m.gguf");
  ASSERT_OK(MakeDirectories(staging));
  ASSERT_OK(WriteFileAtomically(JoinPath(staging, "model.gguf"), "weights"));
  ASSERT_OK(WriteFileAtomically(JoinPath(staging, "lwq-manifest.json"), "manifest"));
  ASSERT_OK(WriteFileAtomically(JoinPath(staging, "README.md"), "card"));
  ASSERT_OK(CheckOutput(out));
  ASSERT_OK(Publish(staging, out));
  EXPECT_EQ(Content(out), "weights");
  EXPECT_EQ(Content(server.File("new/m.gguf.lwq-manifest.json")), "manifest");
  EXPECT_EQ(Content(server.File("new/m.gguf.README.md")), "card");
  EXPECT_FALSE(FileExists(staging));
  EXPECT_THAT(CheckOutput(out), FailsWith("OUTPUT_EXISTS", HasSubstr("m.gguf")));
  // Never over something, and never half of a directory.
  ASSERT_OK(MakeDirectories(staging));
  ASSERT_OK(WriteFileAtomically(JoinPath(staging, "model.gguf"), "others"));
  EXPECT_THAT(Publish(staging, out), FailsWith("OUTPUT_EXISTS", HasSubstr("m.gguf")));
  ASSERT_OK(WriteFileAtomically(JoinPath(staging, "config.json"), "{}"));
  EXPECT_THAT(Publish(staging, server.File("other.gguf")),
              FailsWith("USAGE", HasSubstr("--for llama.cpp")));
  EXPECT_EQ(Content(out), "weights");
  EXPECT_FALSE(FileExists(server.File("other.gguf")));
}

TEST(UploadTest, GoesOnFromWhatTheServerHas) {
  FakeServer server;
  std::string content(600'000, 'a');
  content[300'000] = 'b';
  ASSERT_OK(WriteFileAtomically(server.File("text.jsonl"), content));
  server.blobs.break_after = 0;  // after the first message of 256 KiB
  server.blobs.breaks = 1;
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Dataset dataset,
                           UploadDataset(server.client(), server.File("text.jsonl")));
  EXPECT_EQ(server.blobs.content, content);
  EXPECT_THAT(server.blobs.offsets, ElementsAre(0, 262144));
  EXPECT_EQ(dataset.kind(), v1::Dataset::JSONL);
  EXPECT_EQ(dataset.blob().sha256(), Sha256Hex(content));
}

TEST(UploadTest, WhatIsThereIsNotSentAgain) {
  FakeServer server;
  ASSERT_OK(WriteFileAtomically(server.File("text.txt"), "words"));
  server.blobs.complete = true;
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Dataset dataset,
                           UploadDataset(server.client(), server.File("text.txt")));
  EXPECT_EQ(dataset.kind(), v1::Dataset::TEXT);
  EXPECT_THAT(server.blobs.offsets, ElementsAre());
}

TEST(UploadTest, RefusesWhatIsNoFile) {
  FakeServer server;
  EXPECT_THAT(UploadFile(server.client(), server.File("none")),
              FailsWith("FILE_NOT_FOUND", HasSubstr("none")));
  ASSERT_OK(MakeDirectories(server.File("d")));
  EXPECT_THAT(UploadFile(server.client(), server.File("d")),
              FailsWith("DATASET_INVALID", HasSubstr("directory")));
  ASSERT_OK(WriteFileAtomically(server.File("e"), ""));
  EXPECT_THAT(UploadFile(server.client(), server.File("e")),
              FailsWith("DATASET_INVALID", HasSubstr("empty")));
}

TEST(OutputPlaceTest, IsLookedAtBeforeTheWork) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory directory, TempDirectory::Create());
  EXPECT_OK(CheckOutputPlace(JoinPath(directory.path(), "new/deeper")));
  // A file system that takes no folder, whatever the rights.
  EXPECT_THAT(CheckOutputPlace("/proc/x/y"), FailsWith("PERMISSION_DENIED", HasSubstr("/proc")));
  EXPECT_THAT(CheckOutputPlace(JoinPath(directory.path(), ".")),
              ::testing::AnyOf(FailsWith("USAGE", HasSubstr("in use")),
                               FailsWith("OUTPUT_EXISTS", HasSubstr("exists"))));
  const std::string file = JoinPath(directory.path(), "file");
  ASSERT_OK(WriteFileAtomically(file, "x"));
  EXPECT_THAT(CheckOutputPlace(JoinPath(file, "below")),
              FailsWith("PERMISSION_DENIED", HasSubstr("file")));
  EXPECT_OK(CheckOutputRoom(JoinPath(directory.path(), "new"), 1));
  EXPECT_THAT(CheckOutputRoom(JoinPath(directory.path(), "new"), int64_t{1} << 60),
              FailsWith("STORAGE_FULL", HasSubstr("are free")));
}

TEST(HasChoicesTest, TellsItemsFromTexts) {
  LWQ_ASSERT_OK_AND_ASSIGN(const TempDirectory directory, TempDirectory::Create());
  const std::string file = JoinPath(directory.path(), "f");
  ASSERT_OK(WriteFileAtomically(file, "{\"context\": \"a\", \"choices\": [\"b\"]}\nrest"));
  EXPECT_TRUE(HasChoices(file));
  const char* const rows[] = {
      R"({"goal": "a", "sol1": "b", "sol2": "c", "label": 0})",
      R"({"question": "a", "choices": {"text": ["b"], "label": ["A"]}, "answerKey": "A"})",
      R"({"activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": ["d"], "label": "0"})",
      R"({"sentence": "a _ b", "option1": "c", "option2": "d", "answer": "1"})"};
  for (const char* row : rows) {
    ASSERT_OK(WriteFileAtomically(file, absl::StrCat("\xEF\xBB\xBF\n", row, "\n")));
    EXPECT_TRUE(HasChoices(file)) << row;
  }
  ASSERT_OK(WriteFileAtomically(file, "{\"text\": \"a\"}\n"));
  EXPECT_FALSE(HasChoices(file));
  ASSERT_OK(WriteFileAtomically(file, "\"choices\" is a word\n"));
  EXPECT_FALSE(HasChoices(file));
  EXPECT_FALSE(HasChoices(JoinPath(directory.path(), "absent")));
}

}  // namespace
}  // namespace lwq::client
