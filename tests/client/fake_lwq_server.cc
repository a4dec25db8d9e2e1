// Stands in for lwq-server and, under the name lwq-worker, for the worker: listens, writes the
// ready file, answers GetServerInfo with one worker, leaves at SIGTERM. Refuses to start (status
// 78) when a file "refuse" lies beside it.
#include <signal.h>
#include <unistd.h>

#include <map>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "grpcpp/grpcpp.h"
#include "proto/lwq/v1/admin_service.grpc.pb.h"

namespace {

class FakeAdmin : public lwq::v1::AdminService::Service {
  grpc::Status GetServerInfo(grpc::ServerContext*, const lwq::v1::GetServerInfoRequest*,
                             lwq::v1::ServerInfo* response) override {
    response->set_server_pid(::getpid());
    response->set_live_workers(1);
    return grpc::Status::OK;
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (lwq::FileExists(lwq::JoinPath(lwq::Dirname(argv[0]), "refuse"))) return 78;
  if (absl::EndsWith(argv[0], "lwq-worker")) return ::pause();
  std::map<std::string, std::string> flags;
  for (int i = 1; i + 1 < argc; i += 2) flags[argv[i]] = argv[i + 1];
  FakeAdmin admin;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(flags["--listen"], grpc::InsecureServerCredentials());
  builder.RegisterService(&admin);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 74;
  if (!lwq::WriteFileAtomically(flags["--ready-file"],
                                absl::StrCat("{\"pid\": ", ::getpid(), "}\n"))
           .ok()) {
    return 74;
  }
  server->Wait();
  return 0;
}
