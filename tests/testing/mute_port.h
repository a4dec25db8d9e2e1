// A port of the loopback that takes connections and says nothing.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace lwq::testing {

class MutePort {
 public:
  MutePort() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* raw = reinterpret_cast<sockaddr*>(&address);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(fd_, raw, size), 0);
    EXPECT_EQ(::listen(fd_, 8), 0);
    EXPECT_EQ(::getsockname(fd_, raw, &size), 0);
    address_ = absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
  }
  ~MutePort() { ::close(fd_); }
  MutePort(const MutePort&) = delete;
  MutePort& operator=(const MutePort&) = delete;

  const std::string& address() const { return address_; }  // "127.0.0.1:1234"

 private:
  const int fd_;
  std::string address_;
};

}  // namespace lwq::testing
