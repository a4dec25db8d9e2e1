// lwq-server backup and lwq-server restore: of one server's data directory.
#pragma once

namespace lwq {

// `argv[0]` is "backup" or "restore". The exit code: 0, 74 for storage, 78 for what was asked.
int RunBackupCommand(int argc, char** argv);

}  // namespace lwq
