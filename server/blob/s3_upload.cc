#include "server/blob/s3_upload.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/failpoint.h"
#include "base/reasons.h"
#include "base/status_macros.h"

namespace lwq {
namespace {

constexpr char kStateVersion[] = "lwq-upload-1";
constexpr int64_t kMaxStateBytes = int64_t{2} << 20;  // 10,000 parts at some 120 bytes

}  // namespace

std::string S3BlobKey(const std::string& sha256) { return absl::StrCat("sha256/", sha256); }
std::string S3UploadKey(const std::string& sha256, const std::string& owner) {
  return absl::StrCat("uploads/", sha256, owner.empty() ? "" : ".", owner);
}

std::string S3UploadState::ToText() const {
  std::string text = absl::StrCat(kStateVersion, "\n", upload, "\n", size_bytes, "\n", part_bytes,
                                  "\n", hash, "\n");
  for (const S3Part& part : parts) absl::StrAppend(&text, part.checksum, " ", part.etag, "\n");
  return text;
}

absl::StatusOr<S3UploadState> S3UploadState::FromText(absl::string_view text) {
  const absl::Status bad = Failure(reasons::kUploadStateInvalid, "not the state of an upload");
  const std::vector<std::string> lines = absl::StrSplit(text, '\n', absl::SkipEmpty());
  S3UploadState state;
  if (lines.size() < 5 || lines[0] != kStateVersion ||
      !absl::SimpleAtoi(lines[2], &state.size_bytes) ||
      !absl::SimpleAtoi(lines[3], &state.part_bytes) || !Sha256().Restore(lines[4])) {
    return bad;
  }
  state.upload = lines[1];
  state.hash = lines[4];
  for (size_t i = 5; i < lines.size(); ++i) {
    const std::vector<std::string> part = absl::StrSplit(lines[i], ' ');
    if (part.size() != 2) return bad;
    state.parts.push_back({part[1], part[0]});
  }
  if (state.part_bytes <= 0 || state.committed_bytes() > state.size_bytes) return bad;
  return state;
}

absl::StatusOr<S3UploadState> LoadUploadState(S3Client& s3, const BlobId& id,
                                              const std::string& key, int64_t part_bytes) {
  S3UploadState fresh;
  fresh.size_bytes = id.size_bytes;
  fresh.part_bytes = part_bytes;
  if (id.size_bytes <= part_bytes) return fresh;
  absl::StatusOr<S3Object> object = s3.Head(key);
  if (absl::IsNotFound(object.status())) return fresh;
  LWQ_RETURN_IF_ERROR(object.status());
  if (object->size_bytes <= 0 || object->size_bytes > kMaxStateBytes) return fresh;
  LWQ_ASSIGN_OR_RETURN(const std::string text, s3.Get(key, 0, object->size_bytes));
  absl::StatusOr<S3UploadState> state = S3UploadState::FromText(text);
  const bool usable =
      state.ok() && state->size_bytes == id.size_bytes && state->part_bytes == part_bytes;
  return usable ? *std::move(state) : fresh;
}

S3BlobWriter::S3BlobWriter(S3BlobStore* store, BlobId id, std::string key, S3UploadState state)
    : store_(store), id_(std::move(id)), key_(std::move(key)), state_(std::move(state)) {
  if (!state_.hash.empty()) hash_.Restore(state_.hash);
}

S3BlobWriter::~S3BlobWriter() { store_->MarkClosed(key_); }

absl::Status S3BlobWriter::Append(absl::string_view bytes) {
  if (ended_) return Failure(reasons::kUploadEnded, "the upload has ended: start again");
  if (committed_bytes() + static_cast<int64_t>(bytes.size()) > id_.size_bytes) {
    return Drop(Failure(reasons::kSizeExceeded,
                        absl::StrCat("uploading ", id_.sha256, ": more than the declared ",
                                     id_.size_bytes, " bytes; the upload is dropped")));
  }
  const size_t part_bytes = static_cast<size_t>(state_.part_bytes);
  buffer_.append(bytes.data(), bytes.size());
  if (id_.size_bytes <= state_.part_bytes) return absl::OkStatus();  // goes in one piece
  size_t sent = 0;
  absl::Status status;
  for (; status.ok() && buffer_.size() - sent >= part_bytes; sent += status.ok() ? part_bytes : 0) {
    status = PutPart(absl::string_view(buffer_).substr(sent, part_bytes));
  }
  buffer_.erase(0, sent);
  if (status.ok() && sent > 0) {
    Failpoint("s3.part_sent");
    const std::string text = state_.ToText();
    status = store_->s3_.Put(key_, text, S3Checksum(text));
    Failpoint("s3.part_noted");
  }
  return status;
}

absl::Status S3BlobWriter::PutPart(absl::string_view part) {
  S3Client& s3 = store_->s3_;
  const std::string key = S3BlobKey(id_.sha256);
  if (state_.upload.empty()) {
    LWQ_ASSIGN_OR_RETURN(state_.upload, s3.StartUpload(key));
  }
  absl::StatusOr<S3Part> stored =
      s3.PutPart(key, state_.upload, static_cast<int>(state_.parts.size()) + 1, part);
  if (absl::IsNotFound(stored.status())) {
    return Drop(Failure(reasons::kBlobIo,
                        absl::StrCat("the upload of ", id_.sha256, " is gone: start again")));
  }
  LWQ_RETURN_IF_ERROR(stored.status());
  state_.parts.push_back(*std::move(stored));
  hash_.Update(part);
  // The last part may be of any length, after which nothing is saved.
  if (part.size() == static_cast<size_t>(state_.part_bytes)) state_.hash = hash_.Save();
  return absl::OkStatus();
}

absl::Status S3BlobWriter::Finish() {
  if (ended_) return Failure(reasons::kUploadEnded, "the upload has ended: start again");
  const int64_t size = committed_bytes();
  Sha256 hash;
  if (!state_.hash.empty()) hash.Restore(state_.hash);
  hash.Update(buffer_);
  const std::string digest = hash.FinishHex();
  if (size != id_.size_bytes || digest != id_.sha256) {
    return Drop(InvalidFailure(
        reasons::kDigestMismatch.name,
        absl::StrCat("uploading ", id_.sha256, " of ", id_.size_bytes, " bytes: the content is ",
                     digest, " of ", size, " bytes; the upload is dropped")));
  }
  ended_ = true;
  // Owners may send what is there: then it is stored again, and not one more.
  bool is_new = true;
  if (key_ != S3UploadKey(id_.sha256, "")) {
    LWQ_ASSIGN_OR_RETURN(const bool there, store_->Has(id_));
    is_new = !there;
  }
  LWQ_RETURN_IF_ERROR(Store());
  if (!is_new) return absl::OkStatus();
  store_->bytes_ += id_.size_bytes;
  ++store_->count_;
  return absl::OkStatus();
}

absl::Status S3BlobWriter::Store() {
  S3Client& s3 = store_->s3_;
  const std::string key = S3BlobKey(id_.sha256);
  if (id_.size_bytes <= state_.part_bytes) {
    Failpoint("s3.before_put");
    absl::Status put = s3.Put(key, buffer_, S3Checksum(buffer_));
    Failpoint("s3.after_put");
    return put;
  }
  if (!buffer_.empty()) LWQ_RETURN_IF_ERROR(PutPart(buffer_));
  Failpoint("s3.before_finish");
  LWQ_RETURN_IF_ERROR(s3.FinishUpload(key, state_.upload, state_.parts));
  Failpoint("s3.after_finish");
  // What is left of it otherwise expires.
  s3.Delete(key_).IgnoreError();
  return absl::OkStatus();
}

absl::Status S3BlobWriter::Drop(absl::Status why) {
  ended_ = true;
  if (state_.upload.empty()) return why;
  store_->s3_.Delete(key_).IgnoreError();
  store_->s3_.AbortUpload(S3BlobKey(id_.sha256), state_.upload).IgnoreError();
  return why;
}

}  // namespace lwq
