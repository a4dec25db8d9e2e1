// Tenants: whom a job, a model, a dataset, an artifact and a task belong to (docs/decisions/0023).
#pragma once

#include <string>

namespace lwq {

// Of callers of whom nothing else is said, and of all records from before there were tenants.
inline constexpr char kDefaultTenant[] = "default";
// What the server itself provides is everybody's to use. No tenant can be called so.
inline constexpr char kEverybody[] = "*";

// The tenant that a record names; messages leave the default one out.
template <typename Message>
std::string TenantOf(const Message& message) {
  return message.tenant().empty() ? kDefaultTenant : message.tenant();
}

}  // namespace lwq
