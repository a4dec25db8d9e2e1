// libsentencepiece behind an interface without string_view: its header puts std::string_view into
// namespace absl, which cannot be compiled together with Abseil.
#pragma once

#include <memory>
#include <string>
#include <vector>

namespace lwq {

// Immutable and thread-safe after Load. Methods that can fail return false and set `error`.
class SentencePieceModel {
 public:
  SentencePieceModel();
  ~SentencePieceModel();

  bool Load(const std::string& serialized, std::string* error);
  bool Encode(const std::string& text, std::vector<int>* ids, std::string* error) const;
  // Empty on failure.
  std::string Decode(const std::vector<int>& ids) const;
  int size() const;
  // -1: the model has none.
  int unk_id() const;
  int bos_id() const;
  int eos_id() const;
  // `id` in [0, size).
  std::string PieceOf(int id) const;
  // -1 when there is no such piece.
  int IdOf(const std::string& piece) const;

 private:
  struct Processor;
  std::unique_ptr<Processor> processor_;
};

}  // namespace lwq
