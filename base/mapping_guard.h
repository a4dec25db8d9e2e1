// A mapped file that another process shortens kills whoever reads what is gone, by SIGBUS. Where
// lost pages are caught, they read as zeros instead and are counted: whoever computes asks
// afterwards whether what it read was there.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lwq {

// From the first call on, for the whole process: reads of guarded mappings survive. Whoever calls
// it has to look at NumLostPages before it believes what it computed.
void CatchLostPages();
// Pages of guarded mappings that could not be read, since the process began.
int64_t NumLostPages();

// Of MappedFile. Of more mappings than some thousands at a time the rest are not guarded.
void GuardMapping(const void* data, size_t size);
void UnguardMapping(const void* data);

}  // namespace lwq
