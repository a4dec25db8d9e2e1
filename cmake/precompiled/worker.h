// Read once for the worker's bridge to the engine; a file still names what it uses.
#pragma once
#include "cmake/precompiled/base.h"
#include "proto/lwq/v1/task.pb.h"
#include "proto/lwq/v1/worker_service.grpc.pb.h"
