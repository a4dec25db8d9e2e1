#include "server/service/builtin_dataset.h"

#include <cstddef>

// Defined by builtin_dataset.S.in, which takes the file in as it is.
extern "C" {
extern const char lwq_builtin_books_begin[];
extern const char lwq_builtin_books_end[];
}

namespace lwq {

absl::string_view BuiltinBooksText() {
  return {lwq_builtin_books_begin,
          static_cast<size_t>(lwq_builtin_books_end - lwq_builtin_books_begin)};
}

}  // namespace lwq
