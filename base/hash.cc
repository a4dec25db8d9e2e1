#include "base/hash.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <vector>

#include "absl/strings/escaping.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace lwq {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr);
}

Sha256::~Sha256() = default;

void Sha256::Update(absl::Span<const uint8_t> bytes) {
  EVP_DigestUpdate(state_->context, bytes.data(), bytes.size());
}

void Sha256::Update(absl::string_view bytes) {
  EVP_DigestUpdate(state_->context, bytes.data(), bytes.size());
}

std::string Sha256::FinishHex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_DigestFinal_ex(state_->context, digest, &size);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<char*>(digest), size));
}

std::string Sha256Hex(absl::string_view bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.FinishHex();
}

absl::StatusOr<std::string> Sha256HexOfFile(const std::string& path) {
  LWQ_ASSIGN_OR_RETURN(auto file, MappedFile::Open(path));
  Sha256 hash;
  constexpr size_t kChunk = size_t{4} << 20;  // bounds how much of the mapping stays resident
  for (size_t offset = 0; offset < file->bytes().size(); offset += kChunk) {
    hash.Update(file->bytes().subspan(offset, kChunk));
    file->Forget(offset, kChunk);
  }
  return hash.FinishHex();
}

bool IsSha256Hex(absl::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

std::string RandomHex(int num_bytes) {
  std::vector<unsigned char> bytes(num_bytes);
  RAND_bytes(bytes.data(), num_bytes);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<char*>(bytes.data()), bytes.size()));
}

}  // namespace lwq
