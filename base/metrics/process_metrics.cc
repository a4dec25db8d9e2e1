#include "base/metrics/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

namespace lwq {
namespace {

double CpuSeconds() {
  rusage usage = {};
  if (::getrusage(RUSAGE_SELF, &usage) != 0) return 0;
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double ResidentBytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  long long total = 0, resident = 0;
  const int read = std::fscanf(file, "%lld %lld", &total, &resident);
  std::fclose(file);
  return read == 2 ? static_cast<double>(resident) * static_cast<double>(::sysconf(_SC_PAGESIZE))
                   : 0;
}

double EntriesOf(const char* directory) {
  std::error_code error;
  double entries = 0;
  std::filesystem::directory_iterator it(directory, error), end;
  for (; !error && it != end; it.increment(error)) ++entries;
  return entries;
}

double UnixSeconds() {
  timespec now = {};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<double>(now.tv_sec);
}

}  // namespace

ProcessMetrics::ProcessMetrics(Metrics& metrics)
    : cpu_seconds_(metrics.AddCounter("process_cpu_seconds_total",
                                      "Processor time of the process, user and system.", {}, {{}})),
      resident_bytes_(
          metrics.AddGauge("process_resident_memory_bytes", "Resident memory.", {}, {{}})),
      open_files_(metrics.AddGauge("process_open_fds", "Open file descriptors.", {}, {{}})),
      threads_(metrics.AddGauge("process_threads", "Threads of the process.", {}, {{}})) {
  metrics.AddGauge("process_start_time_seconds", "When the process began, in Unix time.", {}, {{}})
      ->Set({}, UnixSeconds());
}

void ProcessMetrics::Update() {
  resident_bytes_->Set({}, ResidentBytes());
  open_files_->Set({}, EntriesOf("/proc/self/fd"));
  threads_->Set({}, EntriesOf("/proc/self/task"));
  MutexLock lock(&mu_);
  const double cpu = CpuSeconds();
  cpu_seconds_->Add({}, cpu - counted_cpu_seconds_);
  counted_cpu_seconds_ = cpu;
}

}  // namespace lwq
