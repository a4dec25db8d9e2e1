// Read once for the generated messages and services.
#pragma once
#include <grpcpp/grpcpp.h>

#include <google/protobuf/generated_message_reflection.h>
#include <google/protobuf/message.h>
#include <google/protobuf/repeated_field.h>
#include <google/protobuf/timestamp.pb.h>
#include <google/protobuf/wire_format.h>
