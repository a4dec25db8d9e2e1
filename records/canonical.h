// The one byte form of a record: what digests and keys are made of.
#pragma once

#include <string>

#include "google/protobuf/message.h"

namespace lwq {

// The deterministic serialization: fields in order of number, maps in order of key. The same
// message gives the same bytes in every process of one build of protobuf.
std::string CanonicalBytes(const google::protobuf::Message& message);
// SHA-256 of it, in hex.
std::string CanonicalDigest(const google::protobuf::Message& message);

}  // namespace lwq
