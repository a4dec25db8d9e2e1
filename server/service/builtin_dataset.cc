#include "server/service/builtin_dataset.h"

#include <cstddef>

// Defined by builtin_dataset.S.in, which takes the files in as they are.
extern "C" {
extern const char lwq_builtin_mixed_begin[];
extern const char lwq_builtin_mixed_end[];
extern const char lwq_builtin_books_begin[];
extern const char lwq_builtin_books_end[];
extern const char lwq_builtin_held_out_begin[];
extern const char lwq_builtin_held_out_end[];
}

namespace lwq {
namespace {

absl::string_view Between(const char* begin, const char* end) {
  return {begin, static_cast<size_t>(end - begin)};
}

}  // namespace

absl::Span<const BuiltinDataset> BuiltinDatasets() {
  static const BuiltinDataset datasets[] = {
      {"datasets/builtin-mixed", "mixed.txt",
       "Books, conversations, technical prose and code, some of it in other languages than "
       "English; "
       "what jobs calibrate on that name nothing else.",
       Between(lwq_builtin_mixed_begin, lwq_builtin_mixed_end)},
      {"datasets/builtin-books", "books.txt", "Excerpts of public-domain books.",
       Between(lwq_builtin_books_begin, lwq_builtin_books_end)},
      {"datasets/builtin-held-out", "built-in text",
       "Books, documentation and code; what jobs are measured on that name nothing else.",
       Between(lwq_builtin_held_out_begin, lwq_builtin_held_out_end)},
  };
  return datasets;
}

}  // namespace lwq
