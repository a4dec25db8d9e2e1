#include "server/store/sqlite_snapshot.h"

#include "absl/strings/str_cat.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/private_path.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "server/store/sqlite_connection.h"

namespace lwq {

absl::Status SnapshotSqlite(const std::string& directory, const std::string& to) {
  const std::string path = JoinPath(directory, "lwq.db");
  if (!FileExists(path)) {
    return Failure(reasons::kFileNotFound,
                   absl::StrCat("there is no ", path,
                                ": is this a server's data directory? Records that lie in "
                                "PostgreSQL are backed up by PostgreSQL"));
  }
  if (FileExists(to)) {
    return Failure(reasons::kOutputExists, absl::StrCat(to, " is there already"));
  }
  LWQ_RETURN_IF_ERROR(MakePrivateFile(to));  // VACUUM fills a file that is empty
  LWQ_ASSIGN_OR_RETURN(const auto db, SqliteConnection::Open(path, /*read_only=*/true));
  // One read transaction of a database in WAL mode: writers do not wait for it.
  LWQ_ASSIGN_OR_RETURN(sqlite3_stmt * vacuum, db->Prepare("VACUUM INTO ?"));
  BindText(vacuum, 1, to);
  return db->Step(vacuum).status();
}

}  // namespace lwq
