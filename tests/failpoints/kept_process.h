// A program that is started again whenever it ends, and how often a failpoint ended it.
#pragma once

#include <sys/types.h>

#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace lwq::testing {

// Thread-safe.
class KeptProcess {
 public:
  // Starts it, with $LWQ_FAILPOINTS; once a point has ended it, without.
  KeptProcess(std::vector<std::string> command, std::string log, const std::string& failpoints);
  ~KeptProcess();

  // SIGKILL, and from then on with these.
  void Restart(const std::string& failpoints);
  // SIGTERM; it is started again, with these, once it has ended by itself.
  void Terminate(const std::string& failpoints);

  // Since the last start that was asked for.
  int fired() const;
  // Ends that nobody asked for, such as a failed check.
  int num_crashes() const;

 private:
  void Keep();
  void Signal(int signal, const std::string& failpoints);

  const std::vector<std::string> command_;
  const std::string log_;
  mutable Mutex mu_;
  CondVar changed_;
  std::string failpoints_ ABSL_GUARDED_BY(mu_);
  pid_t pid_ ABSL_GUARDED_BY(mu_) = 0;
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  bool asked_ ABSL_GUARDED_BY(mu_) = false;
  int fired_ ABSL_GUARDED_BY(mu_) = 0;
  int crashes_ ABSL_GUARDED_BY(mu_) = 0;
  std::thread keeper_;
};

}  // namespace lwq::testing
