// Read once for the tests of server, client and worker; a file still names what it uses.
#pragma once
#include "cmake/precompiled/service.h"
#include "cmake/precompiled/test.h"
