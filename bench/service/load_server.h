// The server under load: a process of its own, so that its memory is its own, on SQLite in a folder
// that goes with it.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "base/file.h"

namespace lwq::bench {

class LoadServer {
 public:
  // Waits until it serves; ends the program when it does not.
  explicit LoadServer(const std::string& binary);
  ~LoadServer();
  LoadServer(const LoadServer&) = delete;
  LoadServer& operator=(const LoadServer&) = delete;

  const std::string& address() const { return address_; }
  // A directory that is a model as far as the server looks.
  const std::string& model_directory() const { return model_directory_; }
  double ResidentMegabytes() const;
  double CpuSeconds() const;

 private:
  std::unique_ptr<TempDirectory> directory_;
  std::string address_;
  std::string model_directory_;
  pid_t pid_ = 0;
};

}  // namespace lwq::bench
