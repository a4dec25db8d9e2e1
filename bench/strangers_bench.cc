// What a thousand calls a second with tokens that are none cost somebody who has one: the time of
// short calls, alone and beside them. Limit: 5 ms for 99 of 100.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/rpc/channel.h"
#include "base/rpc/token.h"
#include "bench/stopwatch.h"
#include "proto/lwq/v1/job_service.grpc.pb.h"
#include "server/service/server.h"

namespace lwq {
namespace {

constexpr double kLimitSeconds = .005;
constexpr int kCalls = 2000;
constexpr absl::Duration kBetweenCalls = absl::Milliseconds(5);
constexpr int kStrangers = 4;
constexpr absl::Duration kBetweenStrangers = absl::Milliseconds(4);  // of each: 1,000/s together

class Caller {
 public:
  Caller(const std::string& address, std::string token)
      : stub_(v1::JobService::NewStub(MakeChannel(address))), token_(std::move(token)) {}
  grpc::StatusCode Call() {
    grpc::ClientContext context;
    context.AddMetadata("authorization", "Bearer " + token_);
    v1::ListJobsResponse response;
    return stub_->ListJobs(&context, {}, &response).error_code();
  }

 private:
  const std::unique_ptr<v1::JobService::Stub> stub_;
  const std::string token_;
};

// Sorted seconds of so many calls, each begun a while after the last one ended.
std::vector<double> TimesOf(Caller& caller) {
  std::vector<double> times;
  for (int i = 0; i < kCalls; ++i) {
    Stopwatch watch;
    if (caller.Call() != grpc::StatusCode::OK) std::printf("a call was refused\n");
    times.push_back(watch.Lap());
    absl::SleepFor(kBetweenCalls);
  }
  std::sort(times.begin(), times.end());
  return times;
}

double Print(const char* what, const std::vector<double>& times) {
  const double p99 = times[times.size() * 99 / 100];
  std::printf("%-24s median %.2f ms, 99 of 100 within %.2f ms\n", what,
              1e3 * times[times.size() / 2], 1e3 * p99);
  return p99;
}

int Run() {
  spdlog::set_level(spdlog::level::off);
  const TempDirectory directory = *TempDirectory::Create();
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.data_directory = directory.path();
  options.admin_token_file = JoinPath(directory.path(), "admin.token");
  options.audit_log = JoinPath(directory.path(), "audit.jsonl");
  auto server = *Server::Start(options);
  Caller known(server->address(), *ReadTokenFile(options.admin_token_file));
  known.Call();
  Print("alone", TimesOf(known));
  std::atomic<bool> stop{false};
  std::atomic<int> refused{0};
  std::vector<std::thread> strangers;
  for (int s = 0; s < kStrangers; ++s) {
    strangers.emplace_back([&] {
      Caller stranger(server->address(), MakeTokenText("admin"));
      while (!stop) {
        if (stranger.Call() == grpc::StatusCode::UNAUTHENTICATED) ++refused;
        absl::SleepFor(kBetweenStrangers);
      }
    });
  }
  Stopwatch watch;
  const std::vector<double> beside = TimesOf(known);
  const double seconds = watch.Lap();
  stop = true;
  for (std::thread& stranger : strangers) stranger.join();
  const double p99 = Print("beside strangers", beside);
  std::printf("%.0f strangers a second refused; audit log %ld bytes\n", refused / seconds,
              static_cast<long>(FileSize(options.audit_log).value_or(0)));
  std::printf("%.2f of the limit\n", p99 / kLimitSeconds);
  return 0;
}

}  // namespace
}  // namespace lwq

int main() { return lwq::Run(); }
