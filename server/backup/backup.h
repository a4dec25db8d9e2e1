// Backups of one server's data directory: its records as of one moment and the blobs that they
// need, every blob checked by its digest. A backup is laid out like a data directory, with
// backup.json, written last, to say that it is whole.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace lwq {

struct BackupReport {
  int64_t num_records = 0;
  absl::Time newest_job = absl::InfinitePast();  // when it was submitted; of none, the default
  int64_t num_blobs = 0;
  int64_t blob_bytes = 0;
  // Digests of blobs that records need and that the server has lost, or holds damaged: what the
  // backup lacks, because there is no more.
  std::vector<std::string> missing;
};

struct BackupOptions {
  std::string blobs;                  // the server's --blobs; empty: in the data directory
  std::function<void()> on_snapshot;  // tests: after each copy of the records
};

// The server may run: its jobs go on, and what is deleted meanwhile is not in the backup. `target`
// is made, or empty, or has a backup that was not finished, which goes on. ALREADY_EXISTS
// "OUTPUT_EXISTS"; RESOURCE_EXHAUSTED "STORAGE_FULL" before anything is copied; NOT_FOUND when
// `data_directory` holds no records, or the folder of the blobs that they name is not there;
// INVALID_ARGUMENT "BLOB_URL_INVALID" for blobs that are not in a folder. A backup that lacks blobs
// is OK here.
absl::StatusOr<BackupReport> BackUp(const std::string& data_directory, const std::string& target,
                                    const BackupOptions& options = {});

// NOT_FOUND "BLOB_MISSING" for a backup that lacks blobs: which is kept, and is not what was asked
// for.
absl::Status CheckNoneMissing(const BackupReport& report, const std::string& backup);

// Makes a data directory of a backup, which stays as it is. ALREADY_EXISTS "OUTPUT_EXISTS" unless
// `data_directory` is new or empty; NOT_FOUND for what is no finished backup; DATA_LOSS
// "STORE_CORRUPT" when it is damaged; NOT_FOUND "BLOB_MISSING" when it has none of its blobs;
// FAILED_PRECONDITION "STORE_LOCKED" when a server works there. A server starts in the directory
// only after OK.
absl::StatusOr<BackupReport> Restore(const std::string& backup, const std::string& data_directory);

}  // namespace lwq
