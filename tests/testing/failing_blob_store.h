// A blob store, its readers and its writers, whose calls fail as a FaultPlan says.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/failure.h"
#include "server/blob/blob_store.h"
#include "tests/testing/fault_plan.h"

namespace lwq::testing {

// What a call that failed by plan says.
inline absl::Status BlobFault() {
  return Failure(absl::StatusCode::kUnavailable, "BLOB_IO", "a fault that the test asked for");
}

// The answer of `call`, unless the plan has it fail.
template <typename Call>
auto CallOrFail(FaultPlan& plan, const absl::Status& failure, Call call) -> decltype(call()) {
  const Fault fault = plan.Next();
  if (fault == Fault::kBefore) return failure;
  auto result = call();
  if (fault == Fault::kAfter) return failure;
  return result;
}

class FailingBlobReader : public BlobReader {
 public:
  FailingBlobReader(std::unique_ptr<BlobReader> inner, FaultPlan* plan)
      : inner_(std::move(inner)), plan_(plan) {}
  int64_t size_bytes() const override { return inner_->size_bytes(); }
  absl::StatusOr<std::string> Read(int64_t offset, int64_t limit) override {
    return CallOrFail(*plan_, BlobFault(), [&] { return inner_->Read(offset, limit); });
  }

 private:
  const std::unique_ptr<BlobReader> inner_;
  FaultPlan* const plan_;
};

class FailingBlobWriter : public BlobWriter {
 public:
  FailingBlobWriter(std::unique_ptr<BlobWriter> inner, FaultPlan* plan)
      : inner_(std::move(inner)), plan_(plan) {}
  int64_t committed_bytes() const override { return inner_->committed_bytes(); }
  absl::Status Append(absl::string_view bytes) override {
    return CallOrFail(*plan_, BlobFault(), [&] { return inner_->Append(bytes); });
  }
  absl::Status Finish() override {
    return CallOrFail(*plan_, BlobFault(), [&] { return inner_->Finish(); });
  }

 private:
  const std::unique_ptr<BlobWriter> inner_;
  FaultPlan* const plan_;
};

// `inner` and `plan` outlive it.
class FailingBlobStore : public BlobStore {
 public:
  FailingBlobStore(BlobStore* inner, FaultPlan* plan) : inner_(inner), plan_(plan) {}

  absl::StatusOr<bool> Has(const BlobId& id) const override {
    return CallOrFail(*plan_, BlobFault(), [&] { return inner_->Has(id); });
  }
  absl::StatusOr<std::unique_ptr<BlobReader>> OpenRead(const BlobId& id) override {
    auto open = [&]() -> absl::StatusOr<std::unique_ptr<BlobReader>> {
      auto reader = inner_->OpenRead(id);
      if (!reader.ok()) return reader;
      return std::make_unique<FailingBlobReader>(*std::move(reader), plan_);
    };
    return CallOrFail(*plan_, BlobFault(), open);
  }
  absl::StatusOr<std::unique_ptr<BlobWriter>> OpenUpload(const BlobId& id,
                                                         const std::string& owner) override {
    auto open = [&]() -> absl::StatusOr<std::unique_ptr<BlobWriter>> {
      auto writer = inner_->OpenUpload(id, owner);
      if (!writer.ok()) return writer;
      return std::make_unique<FailingBlobWriter>(*std::move(writer), plan_);
    };
    return CallOrFail(*plan_, BlobFault(), open);
  }
  absl::StatusOr<int64_t> UploadedBytesOf(const BlobId& id,
                                          const std::string& owner) const override {
    return CallOrFail(*plan_, BlobFault(), [&] { return inner_->UploadedBytesOf(id, owner); });
  }
  absl::StatusOr<std::vector<UploadStat>> ListUploads() const override {
    return CallOrFail(*plan_, BlobFault(), [&] { return inner_->ListUploads(); });
  }
  absl::StatusOr<int> ExpireUploads(absl::Time before) override {
    return CallOrFail(*plan_, BlobFault(), [&] { return inner_->ExpireUploads(before); });
  }
  absl::Status Delete(const BlobId& id) override {
    return CallOrFail(*plan_, BlobFault(), [&] { return inner_->Delete(id); });
  }
  absl::StatusOr<std::vector<BlobStat>> List(const std::string& after, int limit) const override {
    return CallOrFail(*plan_, BlobFault(), [&] { return inner_->List(after, limit); });
  }
  int64_t total_bytes() const override { return inner_->total_bytes(); }
  int64_t total_count() const override { return inner_->total_count(); }
  int64_t num_corrupt() const override { return inner_->num_corrupt(); }
  absl::StatusOr<int64_t> FreeBytes() const override { return inner_->FreeBytes(); }

 private:
  BlobStore* const inner_;
  FaultPlan* const plan_;
};

}  // namespace lwq::testing
