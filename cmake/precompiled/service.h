// Read once for server and client; a file still names what it uses.
#pragma once
#include "cmake/precompiled/base.h"
#include "proto/lwq/v1/admin_service.grpc.pb.h"
#include "proto/lwq/v1/artifact_service.grpc.pb.h"
#include "proto/lwq/v1/job_service.grpc.pb.h"
#include "proto/lwq/v1/model_service.grpc.pb.h"
#include "proto/lwq/v1/record.pb.h"
#include "proto/lwq/v1/worker_service.grpc.pb.h"
