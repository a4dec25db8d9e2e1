// A proxy between a client and a server on Unix sockets that, when it is told to, passes a message
// on, waits for the answer, and cuts the connection in place of giving it back.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "base/mutex.h"
#include "gtest/gtest.h"

namespace lwq::testing {

class CuttingProxy {
 public:
  CuttingProxy(const std::string& listen_path, std::string server_path)
      : server_path_(std::move(server_path)), listener_(Socket()) {
    const sockaddr_un address = AddressOf(listen_path);
    const auto* raw = reinterpret_cast<const sockaddr*>(&address);
    EXPECT_EQ(::bind(listener_, raw, sizeof address), 0);
    EXPECT_EQ(::listen(listener_, 16), 0);
    acceptor_ = std::thread([this] { Accept(); });
  }
  ~CuttingProxy() {
    stop_ = true;
    acceptor_.join();
    MutexLock lock(&mu_);
    for (std::thread& pair : pairs_) pair.join();
    ::close(listener_);
  }

  // The next message from a client that contains `text` gets no answer.
  void CutAfter(const std::string& text) {
    MutexLock lock(&mu_);
    text_ = text;
  }
  int num_cuts() const { return num_cuts_; }

 private:
  static int Socket() { return ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); }
  static sockaddr_un AddressOf(const std::string& path) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    return address;
  }
  // Whether there is something to read, after at most 50 ms.
  static bool Readable(int fd) {
    pollfd wait = {fd, POLLIN, 0};
    return ::poll(&wait, 1, 50) > 0;
  }

  void Accept() {
    while (!stop_) {
      if (!Readable(listener_)) continue;
      const int client = ::accept(listener_, nullptr, nullptr);
      MutexLock lock(&mu_);
      pairs_.emplace_back([this, client] { Serve(client); });
    }
  }

  void Serve(int client) {
    const int server = Socket();
    const sockaddr_un address = AddressOf(server_path_);
    if (::connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
      while (!stop_ && Exchange(client, server)) {
      }
    }
    ::close(server);
    ::close(client);
  }

  // False when the connection ends.
  bool Exchange(int client, int server) {
    pollfd both[] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
    ::poll(both, 2, 50);
    if (both[1].revents != 0 && !Forward(server, client, nullptr)) return false;
    if (both[0].revents == 0) return true;
    std::string message;
    if (!Forward(client, server, &message)) return false;
    {
      MutexLock lock(&mu_);
      if (text_.empty() || !absl::StrContains(message, text_)) return true;
      text_.clear();
    }
    while (!stop_ && !Readable(server)) {
    }
    ++num_cuts_;
    return false;
  }

  static bool Forward(int from, int to, std::string* message) {
    char buffer[1 << 16];
    const ssize_t size = ::recv(from, buffer, sizeof buffer, 0);
    if (size <= 0) return false;
    if (message != nullptr) message->assign(buffer, static_cast<size_t>(size));
    return ::send(to, buffer, static_cast<size_t>(size), MSG_NOSIGNAL) == size;
  }

  const std::string server_path_;
  const int listener_;
  std::atomic<bool> stop_{false};
  std::atomic<int> num_cuts_{0};
  std::thread acceptor_;
  Mutex mu_;
  std::string text_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> pairs_ ABSL_GUARDED_BY(mu_);
};

}  // namespace lwq::testing
