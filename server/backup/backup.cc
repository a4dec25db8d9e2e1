#include "server/backup/backup.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/private_path.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "proto/lwq/v1/job.pb.h"
#include "proto/lwq/v1/model.pb.h"
#include "proto/lwq/v1/record.pb.h"
#include "server/blob/local_blob_store.h"
#include "server/store/blob_refs.h"
#include "server/store/data_directory.h"
#include "server/store/sqlite_snapshot.h"
#include "server/store/sqlite_store.h"

namespace lwq {
namespace {

constexpr char kDatabase[] = "lwq.db";
constexpr char kManifest[] = "backup.json";
constexpr char kBegun[] =
    "backup.begun";  // a backup that was not finished: the next goes on with it
constexpr int64_t kMostManifestBytes = 64 << 20;
constexpr int64_t kReadBytes = 1 << 20;
// What jobs deleted while blobs were copied is gone from the next copy of the records.
constexpr int kMostRounds = 5;

// By digest.
using Blobs = std::map<std::string, BlobId>;

struct Needed {
  int64_t num_records = 0;
  absl::Time newest_job = absl::InfinitePast();
  Blobs blobs;
};

// A record of a table whose records name blobs; null for the other tables. As in the collector.
std::unique_ptr<google::protobuf::Message> NewRecord(Table table) {
  switch (table) {
    case Table::kJobs:
      return std::make_unique<v1::JobRecord>();
    case Table::kTasks:
      return std::make_unique<v1::TaskRecord>();
    case Table::kCache:
      return std::make_unique<v1::CacheRecord>();
    case Table::kModels:
      return std::make_unique<v1::Model>();
    case Table::kDatasets:
      return std::make_unique<v1::Dataset>();
    case Table::kArtifacts:
      return std::make_unique<v1::Artifact>();
    default:
      return nullptr;
  }
}

absl::Status AddNeeded(Store& store, Table table, Needed& needed) {
  const std::unique_ptr<google::protobuf::Message> record = NewRecord(table);
  ListQuery query;
  query.order_at_least = INT64_MIN;
  while (true) {
    LWQ_ASSIGN_OR_RETURN(const std::vector<Record> rows, store.List(table, query));
    needed.num_records += static_cast<int64_t>(rows.size());
    for (const Record& row : rows) {
      if (table == Table::kJobs) {
        needed.newest_job = std::max(needed.newest_job, absl::FromUnixMicros(row.order));
      }
      if (record == nullptr) break;
      if (!record->ParseFromString(row.value)) {
        return Failure(reasons::kStoreCorrupt,
                       absl::StrCat("record ", row.key, " of ", NameOf(table), " is not readable"));
      }
      ForEachBlobRef(*record, [&](const v1::BlobRef& blob) {
        needed.blobs[blob.sha256()] = {blob.sha256(), blob.size_bytes()};
      });
    }
    if (static_cast<int>(rows.size()) < query.limit) return absl::OkStatus();
    query.after_key = rows.back().key;
  }
}

// Of the records in `directory`, which is nobody else's. It is left without the store's own files.
absl::StatusOr<Needed> LookAt(const std::string& directory) {
  Needed needed;
  {
    LWQ_ASSIGN_OR_RETURN(const auto store, SqliteStore::Open(directory));
    for (int t = 0; t < kNumTables; ++t) {
      LWQ_RETURN_IF_ERROR(AddNeeded(*store, static_cast<Table>(t), needed));
    }
  }
  LWQ_RETURN_IF_ERROR(RemoveAll(JoinPath(directory, "lock")));
  return needed;
}

absl::Status CopyBlob(BlobStore& from, BlobStore& to, const BlobId& id) {
  LWQ_ASSIGN_OR_RETURN(const auto reader, from.OpenRead(id));
  LWQ_ASSIGN_OR_RETURN(const auto writer, to.OpenWrite(id));
  for (int64_t offset = writer->committed_bytes(); offset < id.size_bytes;) {
    LWQ_ASSIGN_OR_RETURN(const std::string bytes, reader->Read(offset, kReadBytes));
    LWQ_RETURN_IF_ERROR(writer->Append(bytes));
    offset += static_cast<int64_t>(bytes.size());
  }
  return writer->Finish();
}

// The folder of the blobs of a server with these --blobs. Any other store is backed up by its own
// means.
absl::StatusOr<std::string> FolderOf(const std::string& data_directory, const std::string& blobs) {
  if (blobs.empty()) return JoinPath(data_directory, "blobs");
  if (absl::StartsWith(blobs, "s3://")) {
    return Failure(reasons::kBlobUrlInvalid,
                   absl::StrCat("backing up the blobs of \"", blobs,
                                "\": only those in a folder are copied; versioning or replication "
                                "of the bucket backs these up"));
  }
  std::string folder(absl::StripPrefix(absl::StripPrefix(blobs, "file://"), "file:"));
  if (folder.empty() || blobs == "memory:" || absl::StrContains(folder, "://")) {
    return Failure(reasons::kBlobUrlInvalid, absl::StrCat("backing up the blobs of \"", blobs,
                                                          "\": that names no folder of blobs"));
  }
  return folder;
}

// Never makes the folder: one that is not there is not one that is empty.
absl::StatusOr<std::unique_ptr<LocalBlobStore>> OpenSource(const std::string& folder,
                                                           const Blobs& blobs) {
  if (!IsDirectory(JoinPath(folder, "sha256"))) {
    return Failure(reasons::kFileNotFound,
                   absl::StrCat("there is no ", JoinPath(folder, "sha256"), ", where the ",
                                blobs.size(), " blobs that records name should be"));
  }
  // A backup stays as it is; and what is wrong with a server's blobs is the server's to move.
  LocalBlobOptions options;
  options.read_only = true;
  return LocalBlobStore::Open(folder, options);
}

// Those that `to` has not; which of them `from` has not either, or damaged.
absl::StatusOr<std::set<std::string>> CopyBlobs(const std::string& folder, BlobStore& to,
                                                const Blobs& blobs) {
  std::set<std::string> missing;
  if (blobs.empty()) return missing;
  LWQ_ASSIGN_OR_RETURN(const auto from, OpenSource(folder, blobs));
  for (const auto& [digest, id] : blobs) {
    LWQ_ASSIGN_OR_RETURN(const bool there, to.Has(id));
    if (there) continue;
    absl::Status copied = CopyBlob(*from, to, id);
    // A blob that is read in parts is known to be damaged when its copy has another digest.
    if (HasReason(copied, reasons::kBlobMissing) || HasReason(copied, reasons::kBlobCorrupt) ||
        HasReason(copied, reasons::kDigestMismatch)) {
      missing.insert(digest);
    } else if (!copied.ok()) {
      return Annotate(copied, "copying blob ", digest);
    }
  }
  return missing;
}

// Nothing is flushed blob by blob: all is, before the end.
absl::StatusOr<std::unique_ptr<LocalBlobStore>> OpenTarget(const std::string& directory) {
  LocalBlobOptions options;
  options.sync = [](int) { return 0; };
  return LocalBlobStore::Open(JoinPath(directory, "blobs"), options);
}

absl::Status FlushAll(const std::string& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("opening ", directory));
  const bool failed = ::syncfs(fd) != 0;
  const int error = errno;
  ::close(fd);
  return failed ? absl::ErrnoToStatus(error, absl::StrCat("flushing ", directory))
                : absl::OkStatus();
}

absl::Status CheckNewOrEmpty(const std::string& directory, const char* besides = "lost+found") {
  LWQ_RETURN_IF_ERROR(MakePrivateDirectory(directory));
  LWQ_ASSIGN_OR_RETURN(std::vector<std::string> names, ListDirectory(directory));
  std::erase(names, "lost+found");  // of a file system's root
  std::erase(names, besides);
  if (names.empty()) return absl::OkStatus();
  return Failure(reasons::kOutputExists, absl::StrCat(directory, " is not empty: it holds ",
                                                      names.front(), "; give a new directory"));
}

absl::Status Begin(const std::string& target) {
  const std::string begun = JoinPath(target, kBegun);
  if (FileExists(begun)) return absl::OkStatus();
  LWQ_RETURN_IF_ERROR(CheckNewOrEmpty(target));
  return WriteFileAtomically(begun, "");
}

// Before hours of copying.
absl::Status CheckRoom(const BlobStore& to, const Blobs& blobs, const std::string& target) {
  int64_t needed = 0;
  for (const auto& [digest, id] : blobs) {
    LWQ_ASSIGN_OR_RETURN(const bool there, to.Has(id));
    if (!there) needed += id.size_bytes;
  }
  LWQ_ASSIGN_OR_RETURN(const int64_t free, to.FreeBytes());
  if (needed <= free) return absl::OkStatus();
  return Failure(reasons::kStorageFull,
                 absl::StrCat("the backup needs ", needed, " bytes more, and ", target,
                              " has room for ", free));
}

BackupReport ReportOf(const Needed& needed, const std::set<std::string>& missing) {
  BackupReport report;
  report.num_records = needed.num_records;
  report.newest_job = needed.newest_job;
  report.missing.assign(missing.begin(), missing.end());
  for (const auto& [digest, id] : needed.blobs) {
    if (missing.count(digest) > 0) continue;
    ++report.num_blobs;
    report.blob_bytes += id.size_bytes;
  }
  return report;
}

absl::Status WriteManifest(const std::string& target, const BackupReport& report) {
  LWQ_ASSIGN_OR_RETURN(const std::string digest, Sha256HexOfFile(JoinPath(target, kDatabase)));
  const nlohmann::json manifest = {{"version", 1},
                                   {"time", absl::FormatTime(absl::Now(), absl::UTCTimeZone())},
                                   {"records", report.num_records},
                                   {"records_sha256", digest},
                                   {"blobs", report.num_blobs},
                                   {"blob_bytes", report.blob_bytes},
                                   {"missing", report.missing}};
  return WriteFileAtomically(JoinPath(target, kManifest), manifest.dump(2) + "\n");
}

struct Manifest {
  std::string records_sha256;
  std::set<std::string> missing;
};

absl::StatusOr<Manifest> ReadManifest(const std::string& backup) {
  const std::string path = JoinPath(backup, kManifest);
  if (!FileExists(path)) {
    return Failure(reasons::kFileNotFound,
                   absl::StrCat("there is no ", path, ": ", backup,
                                " is no backup, or one that was not finished"));
  }
  LWQ_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMostManifestBytes));
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  try {
    return Manifest{json.at("records_sha256").get<std::string>(),
                    json.at("missing").get<std::set<std::string>>()};
  } catch (const nlohmann::json::exception& error) {
    return Failure(reasons::kStoreCorrupt, absl::StrCat("reading ", path, ": ", error.what()));
  }
}

// The records, checked, in a folder of their own: a directory that was not restored to the end has
// no database where a server would look for it.
absl::Status CopyRecords(const std::string& backup, const std::string& digest,
                         const std::string& folder) {
  const std::string from = JoinPath(backup, kDatabase);
  LWQ_ASSIGN_OR_RETURN(const std::string found, Sha256HexOfFile(from));
  if (found != digest) {
    return Failure(reasons::kStoreCorrupt,
                   absl::StrCat(from, " is not what was backed up: its SHA-256 is ", found, ", ",
                                digest, " expected; take another backup"));
  }
  LWQ_RETURN_IF_ERROR(MakeDirectories(folder));
  LWQ_RETURN_IF_ERROR(MakePrivateFile(JoinPath(folder, kDatabase)));
  LWQ_ASSIGN_OR_RETURN(const auto file, MappedFile::Open(from));
  LWQ_ASSIGN_OR_RETURN(const auto writer, FileWriter::Create(JoinPath(folder, kDatabase)));
  LWQ_RETURN_IF_ERROR(writer->Append(file->bytes()));
  return writer->Finish();
}

}  // namespace

absl::StatusOr<BackupReport> BackUp(const std::string& data_directory, const std::string& target,
                                    const BackupOptions& options) {
  LWQ_ASSIGN_OR_RETURN(const std::string from, FolderOf(data_directory, options.blobs));
  LWQ_RETURN_IF_ERROR(Begin(target));
  const std::string database = JoinPath(target, kDatabase);
  LWQ_RETURN_IF_ERROR(RemoveAll(database));
  LWQ_RETURN_IF_ERROR(SnapshotSqlite(data_directory, database));
  LWQ_ASSIGN_OR_RETURN(const auto to, OpenTarget(target));
  Needed needed;
  std::set<std::string> missing;
  for (int round = 0; round < kMostRounds; ++round) {
    if (round > 0) {
      LWQ_RETURN_IF_ERROR(RemoveAll(database));
      LWQ_RETURN_IF_ERROR(SnapshotSqlite(data_directory, database));
    }
    if (options.on_snapshot) options.on_snapshot();
    LWQ_ASSIGN_OR_RETURN(needed, LookAt(target));
    LWQ_RETURN_IF_ERROR(CheckRoom(*to, needed.blobs, target));
    const std::set<std::string> missing_before = std::move(missing);
    absl::StatusOr<std::set<std::string>> copied = CopyBlobs(from, *to, needed.blobs);
    if (HasReason(copied.status(), reasons::kFileNotFound)) {
      return Annotate(copied.status(), "backing up ", data_directory,
                      " (--blobs says where else the server keeps its blobs)");
    }
    LWQ_ASSIGN_OR_RETURN(missing, std::move(copied));
    // What is missing twice is not missing because its record was just deleted.
    if (missing.empty() || missing == missing_before) break;
  }
  const BackupReport report = ReportOf(needed, missing);
  LWQ_RETURN_IF_ERROR(FlushAll(target));
  LWQ_RETURN_IF_ERROR(WriteManifest(target, report));
  LWQ_RETURN_IF_ERROR(RemoveAll(JoinPath(target, kBegun)));
  return report;
}

absl::Status CheckNoneMissing(const BackupReport& report, const std::string& backup) {
  if (report.missing.empty()) return absl::OkStatus();
  return Failure(
      reasons::kBlobMissing,
      absl::StrCat("the backup ", backup, " is kept, without ", report.missing.size(), " of the ",
                   report.num_blobs + static_cast<int64_t>(report.missing.size()),
                   " blobs that its records name: the server's folder of blobs has them not, or "
                   "damaged; \"missing\" in ",
                   JoinPath(backup, kManifest), " names them"));
}

absl::StatusOr<BackupReport> Restore(const std::string& backup, const std::string& data_directory) {
  LWQ_ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(backup));
  LWQ_RETURN_IF_ERROR(CheckNewOrEmpty(data_directory, "lock"));
  // To the end: a server that is started meanwhile would make a database of its own.
  LWQ_ASSIGN_OR_RETURN(const auto lock, DirectoryLock::Take(data_directory));
  LWQ_RETURN_IF_ERROR(CheckNewOrEmpty(data_directory, "lock"));
  const std::string folder = JoinPath(data_directory, kRestoringFolder);
  LWQ_RETURN_IF_ERROR(CopyRecords(backup, manifest.records_sha256, folder));
  LWQ_ASSIGN_OR_RETURN(const Needed needed, LookAt(folder));
  LWQ_ASSIGN_OR_RETURN(const auto to, OpenTarget(data_directory));
  LWQ_ASSIGN_OR_RETURN(const std::set<std::string> missing,
                       CopyBlobs(JoinPath(backup, "blobs"), *to, needed.blobs));
  for (const std::string& digest : missing) {
    if (manifest.missing.count(digest) > 0) continue;
    return Failure(reasons::kStoreCorrupt,
                   absl::StrCat("the backup ", backup, " has lost blob ", digest,
                                ", or holds it damaged: take another backup"));
  }
  if (!missing.empty() && missing.size() == needed.blobs.size()) {
    return Failure(reasons::kBlobMissing,
                   absl::StrCat("the backup ", backup, " has none of the ", missing.size(),
                                " blobs that its records name: copy them into ",
                                JoinPath(backup, "blobs"), ", or take another backup"));
  }
  LWQ_RETURN_IF_ERROR(FlushAll(data_directory));
  const std::string database = JoinPath(data_directory, kDatabase);
  if (FileExists(database)) {
    return Failure(reasons::kOutputExists,
                   absl::StrCat(database, " was made by another program during the restore"));
  }
  LWQ_RETURN_IF_ERROR(RenameFile(JoinPath(folder, kDatabase), database));
  LWQ_RETURN_IF_ERROR(RemoveAll(folder));
  LWQ_RETURN_IF_ERROR(SyncDirectory(data_directory));
  return ReportOf(needed, missing);
}

}  // namespace lwq
