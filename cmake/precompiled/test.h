// Read once for the tests; a file still names what it uses.
#pragma once
#include <cmath>
#include <cstring>
#include <limits>

#include "cmake/precompiled/base.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"
