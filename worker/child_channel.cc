#include "worker/child_channel.h"

#include <endian.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "base/status_macros.h"

namespace lwq {
namespace {

// Of a report of many layers, with room to spare; more is no message.
constexpr uint32_t kMaxBytes = uint32_t{256} << 20;

absl::Status Gone() { return absl::UnavailableError("the other process has gone"); }

}  // namespace

ChildChannel::~ChildChannel() { ::close(socket_); }

absl::Status ChildChannel::Send(const google::protobuf::MessageLite& message) {
  std::string frame(sizeof(uint32_t), '\0');
  message.AppendToString(&frame);
  const uint32_t size = htole32(static_cast<uint32_t>(frame.size() - sizeof(uint32_t)));
  std::memcpy(frame.data(), &size, sizeof size);
  MutexLock lock(&send_mu_);
  for (size_t done = 0; done < frame.size();) {
    const ssize_t n = ::send(socket_, frame.data() + done, frame.size() - done, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Gone();
    done += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::Status ChildChannel::ReadAll(char* bytes, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t n = ::read(socket_, bytes + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Gone();
    done += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::Status ChildChannel::Receive(google::protobuf::MessageLite* message) {
  uint32_t size = 0;
  LWQ_RETURN_IF_ERROR(ReadAll(reinterpret_cast<char*>(&size), sizeof size));
  size = le32toh(size);
  if (size > kMaxBytes) return absl::DataLossError("a message of a length that none has");
  std::string bytes(size, '\0');
  LWQ_RETURN_IF_ERROR(ReadAll(bytes.data(), size));
  if (!message->ParseFromString(bytes)) return absl::DataLossError("what came is no message");
  return absl::OkStatus();
}

}  // namespace lwq
