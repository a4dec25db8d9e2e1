#include "server/blob/verifying_reader.h"

#include "absl/strings/str_cat.h"
#include "base/reasons.h"

namespace lwq {
namespace {

class VerifyingReader : public BlobReader {
 public:
  VerifyingReader(const BlobId& id, std::unique_ptr<BlobReader> raw,
                  std::function<void()> on_corrupt)
      : id_(id), raw_(std::move(raw)), on_corrupt_(std::move(on_corrupt)) {}

  int64_t size_bytes() const override { return id_.size_bytes; }

  absl::StatusOr<std::string> Read(int64_t offset, int64_t limit) override {
    if (!corrupt_.ok()) return corrupt_;
    absl::StatusOr<std::string> bytes = raw_->Read(offset, limit);
    if (absl::IsDataLoss(bytes.status())) return Condemn(bytes.status());
    if (!bytes.ok() || checked_ || offset != hashed_bytes_) return bytes;
    hash_.Update(*bytes);
    hashed_bytes_ += static_cast<int64_t>(bytes->size());
    if (hashed_bytes_ < id_.size_bytes) return bytes;
    checked_ = true;
    const std::string digest = hash_.FinishHex();
    if (digest == id_.sha256) return bytes;
    return Condemn(
        Failure(reasons::kBlobCorrupt,
                absl::StrCat("reading blob ", id_.sha256, " of ", id_.size_bytes,
                             " bytes: the content is ", digest, "; it has to be made again")));
  }

 private:
  absl::Status Condemn(const absl::Status& why) {
    corrupt_ = why;
    on_corrupt_();
    return why;
  }

  const BlobId id_;
  const std::unique_ptr<BlobReader> raw_;
  const std::function<void()> on_corrupt_;
  Sha256 hash_;
  int64_t hashed_bytes_ = 0;  // from 0, without a gap
  bool checked_ = false;
  absl::Status corrupt_;
};

}  // namespace

std::unique_ptr<BlobReader> MakeVerifyingReader(const BlobId& id, std::unique_ptr<BlobReader> raw,
                                                std::function<void()> on_corrupt) {
  return std::make_unique<VerifyingReader>(id, std::move(raw), std::move(on_corrupt));
}

}  // namespace lwq
