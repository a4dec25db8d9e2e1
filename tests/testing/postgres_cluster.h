// A private PostgreSQL server on a Unix socket in a temporary directory, for tests.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "base/file.h"

namespace lwq::testing {

class PostgresCluster {
 public:
  // Makes and starts one; null where PostgreSQL's server is not installed. As root, the server runs
  // as "nobody", because it refuses root.
  static std::unique_ptr<PostgresCluster> Start();
  // Stops it and deletes all it had.
  ~PostgresCluster();

  // The URL of a database of the cluster; "postgres" is always there.
  std::string UrlOf(const std::string& database) const;

  std::string SocketPath() const { return directory_.path() + "/.s.PGSQL.5432"; }

  // The server ends as in a power cut, and is gone when this returns.
  void Kill();
  // Starts it again, and waits until it is ready.
  void Run();
  // Neither answers nor ends, until Resume.
  void Pause();
  void Resume();

 private:
  explicit PostgresCluster(TempDirectory directory) : directory_(std::move(directory)) {}
  std::string DataDirectory() const { return directory_.path() + "/data"; }

  TempDirectory directory_;
  std::string bin_directory_;
  pid_t server_ = 0;
};

}  // namespace lwq::testing
