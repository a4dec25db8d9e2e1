#include "server/service/guard.h"

#include "absl/strings/match.h"
#include "base/failure.h"
#include "gtest/gtest.h"
#include "proto/lwq/v1/admin_service.pb.h"
#include "proto/lwq/v1/artifact_service.pb.h"
#include "proto/lwq/v1/job_service.pb.h"
#include "proto/lwq/v1/model_service.pb.h"
#include "proto/lwq/v1/token_service.pb.h"
#include "proto/lwq/v1/worker_service.pb.h"
#include "server/service/server_metrics.h"

namespace lwq {
namespace {

TEST(GuardTest, EveryMethodOfTheApiIsSomebodys) {
  int num_methods = 0;
  for (const google::protobuf::FileDescriptor* file :
       {v1::GetServerInfoRequest::descriptor()->file(),
        v1::GetArtifactRequest::descriptor()->file(), v1::GetJobRequest::descriptor()->file(),
        v1::GetModelRequest::descriptor()->file(), v1::CreateTokenRequest::descriptor()->file(),
        v1::LeaseTasksRequest::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        EXPECT_NE(RolesFor(file->service(s)->name(), file->service(s)->method(m)->name()), kNobody)
            << file->service(s)->method(m)->full_name();
        ++num_methods;
      }
    }
  }
  EXPECT_GE(num_methods, 40);
  EXPECT_EQ(RolesFor("JobService", "NoSuchMethod"), kNobody);
}

TEST(GuardTest, TokensAreAnAdminsAlone) {
  for (const char* method : {"CreateToken", "ListTokens", "RevokeToken"}) {
    EXPECT_EQ(RolesFor("TokenService", method), unsigned{kAdmin}) << method;
  }
}

// By the names that the API gives what changes nothing.
TEST(GuardTest, WhatChangesSomethingIsAudited) {
  for (const auto& method : ApiMethods()) {
    const absl::string_view name = method[1];
    bool reads = false;
    for (const char* prefix : {"Get", "List", "Read", "Find", "Query", "Watch", "Plan"}) {
      reads |= absl::StartsWith(name, prefix);
    }
    const bool of_a_task = method[0] == "WorkerService" && name != "RegisterWorker";
    EXPECT_EQ(IsAudited(method[0], method[1], kAdmin), !reads && !of_a_task)
        << method[0] << "." << name;
  }
  EXPECT_FALSE(IsAudited("BlobService", "WriteBlob", kWorker));
}

TEST(GuardTest, ARoleIsAUriOfTheCertificate) {
  EXPECT_EQ(RoleOfUri("spiffe://lwq/client/anna"), kClient);
  EXPECT_EQ(RoleOfUri("spiffe://lwq/operator/o"), kOperator);
  EXPECT_EQ(RoleOfUri("spiffe://lwq/admin/root"), kAdmin);
  EXPECT_EQ(RoleOfUri("spiffe://lwq/worker/gpu/7"), kWorker);
  for (const char* other :
       {"", "spiffe://lwq/client", "spiffe://lwq/client/", "spiffe://lwq/king/x",
        "spiffe://other/admin/x", "http://lwq/admin/x", "spiffe://lwq/"}) {
    EXPECT_EQ(RoleOfUri(other), kNobody) << other;
  }
}

std::string TenantOf(const std::vector<std::string>& uris) {
  const absl::StatusOr<std::string> tenant = TenantOfUris(uris);
  return tenant.ok() ? *tenant : ReasonOf(tenant.status());
}

TEST(GuardTest, ATenantIsAUriOfTheCertificate) {
  EXPECT_EQ(TenantOf({"spiffe://lwq/client/anna", "spiffe://lwq/tenant/acme"}), "acme");
  EXPECT_EQ(TenantOf({}), "");
  EXPECT_EQ(TenantOf({"spiffe://lwq/client/acme", "spiffe://other/tenant/acme"}), "");
  EXPECT_EQ(TenantOf({"spiffe://lwq/tenant/a", "spiffe://lwq/tenant/b"}), "ROLE_REQUIRED");
}

// A slip of whoever makes certificates must not open the default tenant.
TEST(GuardTest, WhatCanBeNoTenantIsRefused) {
  for (const char* slip : {"spiffe://lwq/tenant/", "spiffe://lwq/tenant/A", "spiffe://lwq/tenant/*",
                           "spiffe://lwq/tenant/a/b"}) {
    EXPECT_EQ(TenantOf({"spiffe://lwq/client/anna", slip}), "ROLE_REQUIRED") << slip;
  }
}

TEST(GuardTest, AWorkersTokenMayNameItsIdOrWhatItBeginsWith) {
  EXPECT_TRUE(MayBeWorker("", "w"));
  EXPECT_TRUE(MayBeWorker("w", "w"));
  EXPECT_FALSE(MayBeWorker("w", "w2"));
  EXPECT_TRUE(MayBeWorker("gpu-*", "gpu-7"));
  EXPECT_FALSE(MayBeWorker("gpu-*", "cpu-7"));
}

}  // namespace
}  // namespace lwq
