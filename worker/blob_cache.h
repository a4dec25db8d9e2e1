// The worker's local copies of blobs: fetched from and uploaded to the server's BlobService. They
// keep to a number of bytes: the longest unused go first, and none goes that the running task
// reads. One task at a time uses it. A file is hashed before a task reads it, whatever
// happened to it since it was written: a bit that rotted, a power cut, somebody's hand. One that is
// wrong is fetched again.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mutex.h"
#include "grpcpp/channel.h"
#include "proto/lwq/v1/artifact_service.grpc.pb.h"
#include "worker/runner/blob_access.h"

namespace lwq {

class BlobCache : public BlobAccess {
 public:
  // Files live under `directory`; whatever earlier runs left there is used again or deleted.
  static absl::StatusOr<std::unique_ptr<BlobCache>> Open(const std::string& directory,
                                                         std::shared_ptr<grpc::Channel> channel,
                                                         int64_t max_bytes,
                                                         Clock* clock = Clock::Real());

  absl::StatusOr<std::string> Fetch(const v1::BlobRef& blob) override;
  absl::StatusOr<v1::BlobRef> Store(const std::string& path, const std::string& sha256) override;
  std::string ScratchDirectory() const override { return scratch_; }

  // Where a server of this machine and this user keeps its blobs, on the file system of the cache:
  // a blob is then a link to the server's file, and the server's to what a task stored, instead of
  // a copy. Where one cannot be made it is copied. Both ends check the bytes all the same.
  void ShareFilesWith(std::string server_blobs) { server_blobs_ = std::move(server_blobs); }

  // A task begins. `told` hears why an upload of it does not get on, and "" when it does again, until
  // EndTask.
  void BeginTask(std::function<void(const std::string&)> told) {
    tell_waits_ = std::move(told);
    task_begun_ = clock_->Steady();
  }

  // Empties the scratch directory and makes room for what the task held on to. Call between tasks.
  absl::Status EndTask();

  // An upload no longer waits for a full server; async-signal-safe.
  void StopWaiting() { stopped_ = true; }

 private:
  BlobCache(std::string directory, std::shared_ptr<grpc::Channel> channel, int64_t max_bytes,
            Clock* clock);
  std::string PathOf(const std::string& sha256) const;
  // Deletes files until those that are there and those on their way fit.
  absl::Status MakeRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // True if `path` is the server's file of the blob now, and has its bytes.
  bool LinkFromServer(const v1::BlobRef& blob, const std::string& path) const;
  // True if the file at `path` is what the server finds as a whole upload of the blob.
  bool LinkToServer(const v1::BlobRef& blob, const std::string& path) const;
  absl::Status FetchTo(const v1::BlobRef& blob, const std::string& path);
  // Both go on from where they were cut, for as long as they get on.
  absl::Status Download(const v1::BlobRef& blob, const std::string& path);
  absl::Status DownloadFrom(const v1::BlobRef& blob, FileWriter& file, Sha256& hash);
  absl::Status Upload(const v1::BlobRef& blob, const std::string& path);
  // `waited`: whether TellWaits' function has been told of a server without room.
  absl::Status UploadWhole(const v1::BlobRef& blob, const std::string& path, bool& waited);
  absl::StatusOr<int64_t> UploadedBytes(const v1::BlobRef& blob);
  absl::Status UploadFrom(const v1::BlobRef& blob, const std::string& path, int64_t offset);

  const std::string blobs_;
  const std::string scratch_;
  std::string server_blobs_;  // empty: of another machine
  std::function<void(const std::string&)> tell_waits_;
  const int64_t max_bytes_;
  Clock* const clock_;
  absl::Duration task_begun_;  // by the steady clock
  const std::unique_ptr<v1::BlobService::Stub> stub_;
  std::atomic<bool> stopped_{false};

  Mutex mu_;
  CondVar fetched_;
  std::map<std::string, int64_t> fetching_ ABSL_GUARDED_BY(mu_);  // sizes; by one thread each
  std::set<std::string> verified_ ABSL_GUARDED_BY(mu_);           // in this task
};

}  // namespace lwq
