#include "client/doctor.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/failure.h"
#include "base/file.h"
#include "base/log.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "client/process.h"
#include "nlohmann/json.hpp"

namespace lwq::client {
namespace {

using State = Finding::State;

constexpr double kGiB = 1 << 30;
constexpr int64_t kMostProcBytes = 1 << 20;

std::string GiBText(int64_t bytes) {
  return absl::StrFormat("%.1f GiB", static_cast<double>(bytes) / kGiB);
}

// Files of /proc say that they have no bytes: they are read until they end.
std::string ReadSystemFile(const char* path) {
  std::ifstream file(path);
  std::string text(kMostProcBytes, '\0');
  file.read(text.data(), kMostProcBytes);
  text.resize(static_cast<size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  return text;
}

// The first number after `key` in a file of /proc; -1 when there is none.
int64_t NumberAfter(const std::string& text, absl::string_view key) {
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::StartsWith(line, key)) continue;
    const std::vector<absl::string_view> words =
        absl::StrSplit(line.substr(key.size()), absl::ByAnyChar(" \t:"), absl::SkipEmpty());
    int64_t number = -1;
    if (!words.empty() && absl::SimpleAtoi(words[0], &number)) return number;
  }
  return -1;
}

void ReadMemory(MachineFacts* facts) {
  constexpr int64_t kKiB = 1024;
  const std::string info = ReadSystemFile("/proc/meminfo");
  facts->memory_bytes = std::max<int64_t>(NumberAfter(info, "MemTotal"), 0) * kKiB;
  const int64_t available = NumberAfter(info, "MemAvailable");
  facts->available_bytes = available < 0 ? -1 : available * kKiB;
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    int64_t limit = 0;
    const std::string text = ReadSystemFile(path);
    if (!absl::SimpleAtoi(text, &limit) || limit <= 0 || limit >= facts->memory_bytes) continue;
    facts->memory_bytes = limit;
    facts->available_bytes = std::min(facts->available_bytes, limit);
  }
}

void ReadDisk(const std::string& data_directory, MachineFacts* facts) {
  std::string path = data_directory;
  while (path.size() > 1 && !FileExists(path)) path = Dirname(path);
  facts->disk_directory = path;
  facts->disk_writable = ::access(path.c_str(), W_OK) == 0;
  struct statvfs disk;
  if (::statvfs(path.c_str(), &disk) != 0) return;
  facts->disk_free_bytes =
      static_cast<int64_t>(disk.f_frsize) * static_cast<int64_t>(disk.f_bavail);
}

Finding Found(absl::string_view area, absl::string_view name, State state, std::string detail,
              absl::string_view advice) {
  return {std::string(area), std::string(name), state, std::move(detail),
          state == State::kOk ? "" : std::string(advice)};
}

Finding ProcessorFinding(const MachineFacts& facts) {
  std::vector<std::string> have;
  for (const char* flag : {"avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16"}) {
    if (absl::StrContains(facts.cpu_flags, absl::StrCat(" ", flag, " "))) have.push_back(flag);
  }
  const bool fast = absl::StrContains(facts.cpu_flags, " avx2 ");
  const bool bf16 = absl::StrContains(facts.cpu_flags, " avx512_bf16 ") ||
                    absl::StrContains(facts.cpu_flags, " amx_bf16 ");
  std::string detail =
      absl::StrCat(facts.processors, facts.processors == 1 ? " core" : " cores", ", ",
                   have.empty() ? "no vector units that are used" : absl::StrJoin(have, " "));
  if (bf16) absl::StrAppend(&detail, "; --compute bf16 is faster here");
  if (facts.processors < 2 || !fast) {
    return Found("machine", "processor", State::kWarn, detail,
                 "expect long jobs; lwqctl plan MODEL_DIR --budget BUDGET says how long");
  }
  return Found("machine", "processor", State::kOk, detail, "");
}

State StateOf(v1::HealthCheck::State state) {
  if (state == v1::HealthCheck::FAIL) return State::kFail;
  return state == v1::HealthCheck::OK ? State::kOk : State::kWarn;
}

absl::string_view NameOf(State state) {
  return state == State::kOk ? "ok" : state == State::kWarn ? "warn" : "fail";
}

// A file that goes with its owner.
class ScratchFile {
 public:
  ScratchFile() : fd_(::mkstemp(path_)) {}
  ~ScratchFile() {
    if (fd_ < 0) return;
    ::close(fd_);
    ::unlink(path_);
  }
  bool ok() const { return fd_ >= 0; }
  std::string path() const { return path_; }

 private:
  char path_[32] = "/tmp/lwq-doctor-XXXXXX";
  int fd_;
};

}  // namespace

MachineFacts ReadMachineFacts(const std::string& data_directory) {
  MachineFacts facts;
  cpu_set_t processors;
  CPU_ZERO(&processors);
  if (::sched_getaffinity(0, sizeof processors, &processors) == 0) {
    facts.processors = CPU_COUNT(&processors);
  }
  ReadMemory(&facts);
  ReadDisk(data_directory, &facts);
  const std::string cpu = ReadSystemFile("/proc/cpuinfo");
  for (const absl::string_view line : absl::StrSplit(cpu, '\n')) {
    if (!absl::StartsWith(line, "flags")) continue;
    facts.cpu_flags = absl::StrCat(" ", line.substr(line.find(':') + 1), " ");
    break;
  }
  struct rlimit files;
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    facts.open_files = static_cast<int64_t>(std::min<rlim_t>(files.rlim_cur, INT32_MAX));
  }
  return facts;
}

std::vector<Finding> FindingsOfMachine(const MachineFacts& facts) {
  constexpr int64_t kSomeMemory = int64_t{2} << 30;
  constexpr int64_t kSomeDisk = int64_t{5} << 30, kNoDisk = int64_t{256} << 20;
  constexpr int64_t kSomeFiles = 1024;
  std::vector<Finding> findings = {ProcessorFinding(facts)};
  const int64_t available = facts.available_bytes < 0 ? facts.memory_bytes : facts.available_bytes;
  findings.push_back(
      Found("machine", "memory", available < kSomeMemory ? State::kWarn : State::kOk,
            absl::StrCat(GiBText(available), " of ", GiBText(facts.memory_bytes), " available"),
            "end other programs, or give --memory SIZE: jobs keep to it or say what they need"));
  const State disk = !facts.disk_writable || facts.disk_free_bytes < kNoDisk ? State::kFail
                     : facts.disk_free_bytes < kSomeDisk                     ? State::kWarn
                                                                             : State::kOk;
  findings.push_back(
      Found("machine", "disk", disk,
            absl::StrCat(GiBText(facts.disk_free_bytes), " free at ", LogSafe(facts.disk_directory),
                         facts.disk_writable ? "" : ", which may not be written"),
            facts.disk_writable ? "free some (lwqctl gc), or give --data-dir on a larger disk"
                                : "give a --data-dir that you may write"));
  findings.push_back(Found("machine", "open files",
                           facts.open_files < kSomeFiles ? State::kWarn : State::kOk,
                           absl::StrCat("at most ", facts.open_files), "ulimit -n 4096"));
  return findings;
}

std::vector<Finding> FindingsOfServer(const v1::ServerInfo& info, absl::string_view version) {
  std::vector<Finding> findings;
  const bool same = info.version() == version;
  findings.push_back(
      Found("server", "version", same ? State::kOk : State::kWarn,
            same ? LogSafe(info.version())
                 : absl::StrCat("server ", LogSafe(info.version()), ", lwqctl ", version),
            "install programs of one version"));
  for (const v1::HealthCheck& check : info.checks()) {
    findings.push_back(Found("server", LogSafe(check.name()), StateOf(check.state()),
                             LogSafe(check.detail()), LogSafe(check.advice())));
  }
  return findings;
}

Finding UnreachableServer(absl::string_view address, const absl::Status& status) {
  return Found(
      "server", "reachable", State::kFail,
      absl::StrCat(LogSafe(address), ": ", ReasonOf(status), ": ", LogSafe(status.message())),
      ReasonLine(ReasonOf(status), status.code()).help);
}

absl::StatusOr<std::vector<Finding>> FindingsOfModel(absl::string_view json_lines) {
  std::vector<Finding> findings;
  for (const absl::string_view line : absl::StrSplit(json_lines, '\n', absl::SkipEmpty())) {
    const auto json =
        nlohmann::json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
    const auto text = [&json](const char* key) -> std::string {
      const auto found = json.find(key);
      return found != json.end() && found->is_string() ? found->get<std::string>() : "";
    };
    if (!json.is_object() || text("name").empty()) {
      return absl::InternalError(absl::StrCat("lwq-worker --check-model said: ", LogSafe(line)));
    }
    const std::string state = text("state");
    findings.push_back(Found("model", LogSafe(text("name")),
                             state == "ok"     ? State::kOk
                             : state == "warn" ? State::kWarn
                                               : State::kFail,
                             LogSafe(text("detail")), LogSafe(text("advice"))));
  }
  if (findings.empty()) return absl::InternalError("lwq-worker --check-model said nothing");
  return findings;
}

absl::StatusOr<std::vector<Finding>> CheckModelDirectory(const std::string& directory) {
  LWQ_ASSIGN_OR_RETURN(const std::string binaries, OwnDirectory());
  const ScratchFile output;
  if (!output.ok()) return absl::ErrnoToStatus(errno, "making a file in /tmp");
  ProcessOptions process;
  process.argv = {JoinPath(binaries, "lwq-worker"), "--check-model", directory};
  process.log_path = output.path();
  process.die_with_parent = true;
  LWQ_ASSIGN_OR_RETURN(const pid_t pid, StartProcess(process));
  int wait_status = 0;
  while (::waitpid(pid, &wait_status, 0) < 0 && errno == EINTR) continue;
  LWQ_ASSIGN_OR_RETURN(const std::string text, ReadFile(output.path(), kMostProcBytes));
  return FindingsOfModel(text);
}

std::string FindingsText(const std::vector<Finding>& findings) {
  std::string text, area;
  size_t widest = 0;
  for (const Finding& finding : findings) widest = std::max(widest, finding.name.size());
  for (const Finding& finding : findings) {
    if (finding.area != area) {
      absl::StrAppend(&text, area.empty() ? "" : "\n", finding.area, "\n");
      area = finding.area;
    }
    absl::StrAppendFormat(&text, "  %-4s  %-*s  %s\n", NameOf(finding.state),
                          static_cast<int>(widest), finding.name, finding.detail);
    if (!finding.advice.empty()) {
      absl::StrAppendFormat(&text, "        %-*s  do: %s\n", static_cast<int>(widest), "",
                            finding.advice);
    }
  }
  return text;
}

std::string FindingsJson(const std::vector<Finding>& findings) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const Finding& finding : findings) {
    nlohmann::ordered_json one;
    one["area"] = finding.area;
    one["name"] = finding.name;
    one["state"] = std::string(NameOf(finding.state));
    one["detail"] = finding.detail;
    one["advice"] = finding.advice;
    all.push_back(std::move(one));
  }
  return all.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
}

bool AnyFailed(const std::vector<Finding>& findings) {
  return std::any_of(findings.begin(), findings.end(),
                     [](const Finding& f) { return f.state == State::kFail; });
}

}  // namespace lwq::client
