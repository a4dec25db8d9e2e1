// "lwq-server store ...": what is done to a store while no server runs on it.
#pragma once

namespace lwq {

// `argv` begins at "store". Returns the process's exit code: 0, 70, 74 or 78 as main.cc says.
int RunStoreCommand(int argc, char** argv);

}  // namespace lwq
