#include "server/service/listen_address.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/reasons.h"
#include "base/rpc/channel.h"

namespace lwq {

absl::Status CheckListenAddress(const std::string& address, bool authenticated) {
  if (authenticated || IsOnThisMachine(address)) return absl::OkStatus();
  return Failure(reasons::kAddressNotAllowed,
                 absl::StrCat("listening on \"", address,
                              "\": without a certificate (--tls-cert, --tls-key) and a way "
                              "to know clients (--tls-client-ca, --tokens) only unix:/path "
                              "or a loopback address such as 127.0.0.1:7421 is accepted"));
}

absl::StatusOr<std::unique_ptr<AddressLock>> AddressLock::Take(const std::string& address) {
  absl::string_view path = address;
  if (!absl::ConsumePrefix(&path, "unix:")) {
    return std::unique_ptr<AddressLock>(new AddressLock(-1));
  }
  const std::string lock = absl::StrCat(path, ".lock");
  const int fd = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd >= 0 && ::flock(fd, LOCK_EX | LOCK_NB) == 0) {
    return std::unique_ptr<AddressLock>(new AddressLock(fd));
  }
  const std::string why =
      fd < 0 ? absl::StrCat(lock, " cannot be opened") : "another server has it";
  if (fd >= 0) ::close(fd);
  return Failure(reasons::kAddressInUse, absl::StrCat("listening on ", address, ": ", why));
}

AddressLock::~AddressLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace lwq
