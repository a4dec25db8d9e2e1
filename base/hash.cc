#include "base/hash.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <algorithm>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/status_macros.h"

// The old interface of SHA-256, because only it shows the state that Save needs.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

namespace lwq {

struct Sha256::State {
  SHA256_CTX context;
};

Sha256::Sha256() : state_(std::make_unique<State>()) { SHA256_Init(&state_->context); }

Sha256::~Sha256() = default;

void Sha256::Update(absl::Span<const uint8_t> bytes) {
  SHA256_Update(&state_->context, bytes.data(), bytes.size());
}

void Sha256::Update(absl::string_view bytes) {
  SHA256_Update(&state_->context, bytes.data(), bytes.size());
}

std::string Sha256::FinishHex() {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256_Final(digest, &state_->context);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<char*>(digest), sizeof digest));
}

std::string Sha256::Save() const {
  const SHA256_CTX& context = state_->context;
  std::string saved = absl::StrCat(absl::Hex(context.Nh), ".", absl::Hex(context.Nl));
  for (SHA_LONG word : context.h) absl::StrAppend(&saved, ".", absl::Hex(word));
  return saved;
}

bool Sha256::Restore(absl::string_view saved) {
  const std::vector<std::string> parts = absl::StrSplit(saved, '.');
  SHA_LONG words[10];
  if (parts.size() != std::size(words)) return false;
  for (size_t i = 0; i < std::size(words); ++i) {
    if (!absl::SimpleHexAtoi(parts[i], &words[i])) return false;
  }
  SHA256_Init(&state_->context);
  state_->context.Nh = words[0];
  state_->context.Nl = words[1];
  std::copy(words + 2, std::end(words), state_->context.h);
  return true;
}

#pragma GCC diagnostic pop

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

std::string HmacSha256(absl::string_view key, absl::string_view message) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
       reinterpret_cast<const unsigned char*>(message.data()), message.size(), digest, &size);
  return std::string(reinterpret_cast<char*>(digest), size);
}

std::string RandomHex(int num_bytes) {
  std::vector<unsigned char> bytes(num_bytes);
  RAND_bytes(bytes.data(), num_bytes);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<char*>(bytes.data()), bytes.size()));
}

}  // namespace lwq
