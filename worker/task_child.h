// The process that runs a worker's tasks: `lwq-worker --task-child`, started by child_engine.h and
// by nobody else, with its end of a socket as descriptor kTaskChildSocket. It has no connection but
// that one: blobs are fetched and stored by the worker, and lie in files.
#pragma once

namespace lwq {

inline constexpr char kTaskChildFlag[] = "--task-child";
inline constexpr int kTaskChildSocket = 3;

// Until the worker is gone. What the process ends with.
int RunTaskChild();

}  // namespace lwq
