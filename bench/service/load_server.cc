#include "bench/service/load_server.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

extern char** environ;

namespace lwq::bench {
namespace {

[[noreturn]] void GiveUp(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::exit(1);
}

}  // namespace

LoadServer::LoadServer(const std::string& binary) {
  absl::StatusOr<TempDirectory> directory = TempDirectory::Create();
  if (!directory.ok()) GiveUp(directory.status().ToString());
  directory_ = std::make_unique<TempDirectory>(*std::move(directory));
  const auto path = [&](const char* name) { return JoinPath(directory_->path(), name); };
  model_directory_ = path("model");
  address_ = absl::StrCat("unix:", path("s"));
  const bool made = MakeDirectories(model_directory_).ok() &&
                    WriteFileAtomically(JoinPath(model_directory_, "config.json"), "{}").ok();
  if (!made) GiveUp("cannot write to " + directory_->path());
  const std::string ready = path("ready");
  std::vector<std::string> words = {binary,       "--listen",    address_,
                                    "--data-dir", path("data"),  "--ready-file",
                                    ready,        "--log-level", "error"};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  if (posix_spawn(&pid_, binary.c_str(), nullptr, nullptr, arguments.data(), environ) != 0) {
    GiveUp("cannot start " + binary);
  }
  for (int i = 0; i < 1000 && !FileExists(ready); ++i) absl::SleepFor(absl::Milliseconds(20));
  if (!FileExists(ready)) GiveUp(binary + " does not serve");
}

LoadServer::~LoadServer() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

double LoadServer::ResidentMegabytes() const {
  std::ifstream file(absl::StrCat("/proc/", pid_, "/statm"));
  int64_t total = 0, resident = 0;
  file >> total >> resident;
  return static_cast<double>(resident * sysconf(_SC_PAGESIZE)) / 1e6;
}

double LoadServer::CpuSeconds() const {
  std::ifstream file(absl::StrCat("/proc/", pid_, "/stat"));
  std::string word;
  // Fields 14 and 15; the second, the name, has no space.
  for (int i = 0; i < 13; ++i) file >> word;
  int64_t user = 0, system = 0;
  file >> user >> system;
  return static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

}  // namespace lwq::bench
