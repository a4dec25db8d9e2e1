// Host memory for matrices. Fresh pages cost as much as a pass over them, and a job asks for the
// same sizes again and again; so large blocks that are freed wait for the next of their size, as
// long as what is kept and what is in use together stay below the most that has been in use.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lwq {

// At least `bytes` bytes for FreeHost, 64-byte aligned, not initialised; null when there is no
// memory. Large ones ask for huge pages: a workspace of a layer has tens of thousands of small
// ones, and each is a fault. Thread-safe, as the next two.
void* AllocateHost(size_t bytes);
void FreeHost(void* data);  // null is fine

// The most that blocks of AllocateHost and what the process holds besides (`anonymous_bytes` now,
// of which those blocks are a part) may come to; 0: no such limit. Whoever asks for much and can do
// with less asks first whether `bytes` more are allowed. Thread-safe.
void SetHostCeiling(int64_t ceiling_bytes, int64_t anonymous_bytes);
bool HostAllows(size_t bytes);

// From here on malloc too keeps what is freed until TrimHost: for a process that works in tasks.
// False where it cannot be told to. A malloc in glibc's place may not listen.
bool KeepFreedMemory();

// Gives back what is kept, here and by malloc, and forgets how much was in use: for between tasks.
void TrimHost();

// A deleter for std::unique_ptr.
struct HostDeleter {
  void operator()(void* data) const { FreeHost(data); }
};

}  // namespace lwq
