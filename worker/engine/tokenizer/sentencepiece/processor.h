// What the engine asks of libsentencepiece, across the border of a module that is loaded at run
// time (module.cc says why). Standard library types only: libsentencepiece's header puts
// std::string_view into namespace absl and cannot be compiled together with Abseil.
#pragma once

#include <memory>
#include <string>
#include <vector>

namespace lwq {

// Immutable and thread-safe after Load. Methods that can fail return false and set `error`.
class SentencePieceProcessor {
 public:
  virtual ~SentencePieceProcessor() = default;
  virtual bool Load(const std::string& serialized, std::string* error) = 0;
  virtual bool Encode(const std::string& text, std::vector<int>* ids, std::string* error) const = 0;
  // Empty on failure.
  virtual std::string Decode(const std::vector<int>& ids) const = 0;
  virtual int size() const = 0;
  virtual int unk_id() const = 0;
  virtual int bos_id() const = 0;
  virtual int eos_id() const = 0;
  virtual std::string PieceOf(int id) const = 0;
  // -1 when there is no such piece.
  virtual int IdOf(const std::string& piece) const = 0;
};

}  // namespace lwq

// Exported by the module; the caller owns the result.
extern "C" lwq::SentencePieceProcessor* LwqNewSentencePieceProcessor();
