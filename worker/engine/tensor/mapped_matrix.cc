#include "worker/engine/tensor/mapped_matrix.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/file.h"

namespace lwq {

absl::StatusOr<MappedMatrix> MappedMatrix::Create(const std::string& directory, int64_t rows,
                                                  int64_t cols) {
  MatrixView view{nullptr, rows, cols, cols};
  const size_t bytes = static_cast<size_t>(rows * cols) * sizeof(float);
  if (bytes == 0) return MappedMatrix(view);
  std::string path = JoinPath(directory, "matrix-XXXXXX");
  const int fd = ::mkostemp(path.data(), O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("creating a scratch file ", path));
  ::unlink(path.c_str());
  // Allocated now: a full disk is an error here and not a signal at some later write.
  if (const int error = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes)); error != 0) {
    ::close(fd);
    return absl::ErrnoToStatus(error, absl::StrCat("reserving ", bytes, " bytes in ", directory));
  }
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  const int error = errno;
  ::close(fd);
  if (data == MAP_FAILED) {
    return absl::ErrnoToStatus(error, absl::StrCat("mapping ", bytes, " bytes in ", directory));
  }
  view.data = static_cast<float*>(data);
  return MappedMatrix(view);
}

MappedMatrix::MappedMatrix(MappedMatrix&& other) noexcept : view_(other.view_) {
  other.view_ = MatrixView{};
}

MappedMatrix::~MappedMatrix() {
  if (view_.data != nullptr) {
    ::munmap(view_.data, static_cast<size_t>(view_.rows * view_.cols) * sizeof(float));
  }
}

}  // namespace lwq
