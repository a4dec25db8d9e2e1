// A worker's blobs without a server: files in one folder, named by a counter; a blob's digest is
// its path.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/runner/blob_access.h"

namespace lwq::testing {

class LocalBlobs : public BlobAccess {
 public:
  explicit LocalBlobs(std::string directory) : directory_(std::move(directory)) {}

  absl::StatusOr<std::string> Fetch(const v1::BlobRef& blob) override { return blob.sha256(); }
  absl::StatusOr<v1::BlobRef> Store(const std::string& path, const std::string& sha256) override {
    v1::BlobRef blob;
    hashed_[std::string(std::filesystem::path(path).filename())] = sha256;
    blob.set_sha256(absl::StrCat(path, ".", ++stored_));
    std::filesystem::rename(path, blob.sha256());
    return blob;
  }
  std::string ScratchDirectory() const override { return directory_; }
  // By name of the file: the digest that it was stored with, empty where it was not hashed yet.
  const std::map<std::string, std::string>& hashed() const { return hashed_; }

 private:
  const std::string directory_;
  int stored_ = 0;
  std::map<std::string, std::string> hashed_;
};

}  // namespace lwq::testing
