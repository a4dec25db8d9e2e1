// A SentencePiece model, by libsentencepiece in a module of its own (sentencepiece/module.cc).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "worker/engine/tokenizer/sentencepiece/processor.h"

namespace lwq {

// Immutable and thread-safe after Load; nothing but Load may be called before it succeeded. Methods
// that can fail return false and set `error`.
class SentencePieceModel {
 public:
  bool Load(const std::string& serialized, std::string* error);
  bool Encode(const std::string& text, std::vector<int>* ids, std::string* error) const {
    return processor_->Encode(text, ids, error);
  }
  // Empty on failure.
  std::string Decode(const std::vector<int>& ids) const { return processor_->Decode(ids); }
  int size() const { return processor_->size(); }
  // -1: the model has none.
  int unk_id() const { return processor_->unk_id(); }
  int bos_id() const { return processor_->bos_id(); }
  int eos_id() const { return processor_->eos_id(); }
  // `id` in [0, size).
  std::string PieceOf(int id) const { return processor_->PieceOf(id); }
  // -1 when there is no such piece.
  int IdOf(const std::string& piece) const { return processor_->IdOf(piece); }

 private:
  std::unique_ptr<SentencePieceProcessor> processor_;
};

}  // namespace lwq
