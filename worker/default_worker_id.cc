#include "worker/default_worker_id.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace lwq {

std::string DefaultWorkerId(absl::string_view host, int pid) {
  constexpr size_t kMaxHost = 48;
  std::string id;
  for (char c : host.substr(0, kMaxHost)) {
    const char lower = absl::ascii_tolower(static_cast<unsigned char>(c));
    id += absl::ascii_isalnum(static_cast<unsigned char>(lower)) ? lower : '-';
  }
  if (id.empty() || !absl::ascii_islower(static_cast<unsigned char>(id.front()))) id = "w-" + id;
  return absl::StrCat(id, "-", pid);
}

}  // namespace lwq
