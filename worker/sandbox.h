// What a process may still do that runs tasks: compute, and read and write files that its user may.
// A model's files come from strangers, and what reads them is a few thousand lines of parsers; what
// takes such a process over gets no other program, no connection and no other process.
#pragma once

#include "absl/status/status.h"

namespace lwq {

// For this process, all of its threads and for ever: no rights are gained by executing (no-new-
// privileges); no core dump, which would hold weights; and the kernel refuses, with EPERM, to start
// programs or processes, to make or accept connections, to trace or signal other processes, to
// mount, to load modules, and whatever else a task never does. Threads may be started as before.
// Without `filters` the kernel refuses nothing, and the rest holds. UNIMPLEMENTED where the kernel
// cannot; what it can is done all the same.
absl::Status EnterSandbox(bool filters = true);

// Of the worker, which has the connection and the token: what has its user's rights, as the
// processes have that it starts, can neither read nor write its memory through /proc, nor trace it.
void KeepMemoryToItself();

// When memory runs out, the kernel takes this process and not the worker that started it.
void PreferAsOomVictim();

}  // namespace lwq
