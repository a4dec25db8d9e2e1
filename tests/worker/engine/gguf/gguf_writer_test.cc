#include "worker/engine/gguf/gguf_writer.h"

#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/worker/engine/gguf/made_gguf.h"

namespace lwq {
namespace {

using testing::FailsWith;
using ::testing::HasSubstr;

class GgufWriterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    LWQ_ASSERT_OK_AND_ASSIGN(layout_,
                             LayOutGguf(testing::MadeGgufMetadata(), testing::MadeGgufTensors()));
    LWQ_ASSERT_OK_AND_ASSIGN(TempDirectory directory, TempDirectory::Create());
    directory_ = std::make_unique<TempDirectory>(std::move(directory));
    LWQ_ASSERT_OK_AND_ASSIGN(writer_, GgufWriter::Create(Path(), layout_));
  }
  std::string Path() const { return JoinPath(directory_->path(), "out.gguf"); }
  // The tensor that MadeGguf makes, in two pieces.
  absl::Status WriteTensor(size_t i) {
    std::vector<uint8_t> bytes(static_cast<size_t>(layout_.tensors[i].size_bytes()));
    for (size_t b = 0; b < bytes.size(); ++b) bytes[b] = static_cast<uint8_t>(i + b);
    const absl::Span<const uint8_t> all(bytes);
    LWQ_RETURN_IF_ERROR(writer_->Append(layout_.tensors[i].name, all.subspan(0, 7)));
    return writer_->Append(layout_.tensors[i].name, all.subspan(7));
  }

  GgufLayout layout_;
  std::unique_ptr<TempDirectory> directory_;
  std::unique_ptr<GgufWriter> writer_;
};

TEST_F(GgufWriterTest, FileIsTheForecastToTheByte) {
  for (size_t i = 0; i < layout_.tensors.size(); ++i) ASSERT_OK(WriteTensor(i));
  ASSERT_OK(writer_->Finish());
  LWQ_ASSERT_OK_AND_ASSIGN(const std::string file, ReadFile(Path(), 1 << 20));
  EXPECT_EQ(static_cast<int64_t>(file.size()), layout_.file_bytes);
  EXPECT_EQ(file, testing::MadeGguf(layout_));
}

TEST_F(GgufWriterTest, WhatWasNotForecastIsRefused) {
  const std::vector<uint8_t> bytes(2000);
  EXPECT_THAT(writer_->Append("blk.0.attn_norm.weight", absl::MakeConstSpan(bytes).subspan(0, 20)),
              FailsWith("FORECAST_MISMATCH", HasSubstr("the turn of token_embd.weight")));
  EXPECT_THAT(writer_->Append("token_embd.weight", bytes),
              FailsWith("FORECAST_MISMATCH", HasSubstr("864 were forecast")));
}

TEST_F(GgufWriterTest, AMissingTensorIsRefusedAtTheEnd) {
  for (size_t i = 0; i + 1 < layout_.tensors.size(); ++i) ASSERT_OK(WriteTensor(i));
  EXPECT_THAT(writer_->Finish(), FailsWith("FORECAST_MISMATCH", HasSubstr("4 of 5 tensors")));
}

}  // namespace
}  // namespace lwq
