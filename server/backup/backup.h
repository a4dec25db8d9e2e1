// Backups of one server's data directory: its records as of one moment and the blobs that they
// need, every blob checked by its digest. A backup is laid out like a data directory, with
// backup.json, written last, to say that it is whole.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace lwq {

struct BackupReport {
  int64_t num_records = 0;
  int64_t num_blobs = 0;
  int64_t blob_bytes = 0;
  // Digests of blobs that records need and that the server has lost, or holds damaged: what the
  // backup lacks, because there is no more.
  std::vector<std::string> missing;
};

struct BackupOptions {
  std::string blobs;                  // the folder of the blobs; empty: in the data directory
  std::function<void()> on_snapshot;  // tests: after each copy of the records
};

// The server may run: its jobs go on, and what is deleted meanwhile is not in the backup. `target`
// is made, or empty. ALREADY_EXISTS "OUTPUT_EXISTS"; NOT_FOUND when `data_directory` holds no
// records.
absl::StatusOr<BackupReport> BackUp(const std::string& data_directory, const std::string& target,
                                    const BackupOptions& options = {});

// Makes a data directory of a backup, which stays as it is. ALREADY_EXISTS "OUTPUT_EXISTS" unless
// `data_directory` is new or empty; NOT_FOUND for what is no finished backup; DATA_LOSS
// "STORE_CORRUPT" when it is damaged. A server starts in the directory only after OK.
absl::StatusOr<BackupReport> Restore(const std::string& backup, const std::string& data_directory);

}  // namespace lwq
