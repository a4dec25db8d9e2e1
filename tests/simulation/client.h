// A client of a simulation: submits one job until it is acknowledged, watches it to its end over as
// many streams as that takes, and now and then cancels, changes or retries it.
#pragma once

#include <functional>
#include <string>

#include "tests/simulation/network.h"
#include "tests/simulation/promises.h"

namespace lwq::simulation {

struct ClientHabits {
  double cancels = 0;  // of jobs
  double retries = 0;  // of jobs that failed or were cancelled
  double updates = 0;
  double deletes = 0;  // of jobs that ended
  absl::Duration slowest_reader = absl::Milliseconds(5);
};

class Client {
 public:
  Client(World* world, Network* network, Promises* promises, const ClientHabits* habits, int peer,
         std::string id, std::string tenant, v1::CreateJobRequest request)
      : world_(*world),
        network_(*network),
        promises_(*promises),
        habits_(*habits),
        peer_(peer),
        id_(std::move(id)),
        tenant_(std::move(tenant)),
        request_(std::move(request)) {}

  void Start();
  // It has seen its job's end, and does nothing more.
  bool is_content() const { return content_; }
  bool is_acknowledged() const { return acknowledged_; }
  // From here on it only watches.
  void Calm() { calm_ = true; }
  // What it has seen, and where the server should have brought it by now.
  int64_t seen() const { return seen_; }
  const std::string& job() const { return job_; }

 private:
  template <typename Request, typename Response>
  void Call(Network::Method<Request, Response> method, const Request& request,
            Network::Answer<Response> answer);
  void Submit();
  void Watch();
  void Heard(const v1::JobEvent& event);
  void Ended(const absl::Status& status);
  void Meddle();
  void Retry();
  void Delete(const std::string& request_id);
  std::string NewRequestId();

  World& world_;
  Network& network_;
  Promises& promises_;
  const ClientHabits& habits_;
  const int peer_;
  const std::string id_;
  const std::string tenant_;
  v1::CreateJobRequest request_;
  std::string job_;
  int machine_ = 0;
  bool acknowledged_ = false;
  bool content_ = false;
  bool calm_ = false;
  bool from_first_ = false;  // the stream at hand
  int64_t seen_ = 0;         // the number of the last event
  int64_t at_ = -1;          // where the stream at hand is; -1: it begins with a snapshot
  v1::Job::State state_ = v1::Job::STATE_UNSPECIFIED;
};

}  // namespace lwq::simulation
