// What a tenant may have, as its callers meet it.
#include "server/service/quotas.h"

#include <map>

#include "base/failure_details.h"
#include "gmock/gmock.h"
#include "tests/server/service/tenants_fixture.h"

namespace lwq::testing {
namespace {

using ::testing::_;
using ::testing::HasSubstr;

TEST_F(TenantsTest, ATenantsQuotasHold) {
  options_.dispatch.tenants["acme"] = {.max_queued_jobs = 2, .max_bytes = 20};
  StartServer();
  admin_ = std::make_unique<Member>(ChannelWith(path("admin.token")));
  acme_ = Make(v1::Token::CLIENT, "acme");
  other_ = Make(v1::Token::CLIENT, "other");
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Model model, AddModel(*acme_));
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::Model theirs, AddModel(*other_));
  RunUntilOver();
  ASSERT_OK(Submit(*acme_, JobOf(model.name())).status());
  ASSERT_OK(Submit(*acme_, JobOf(model.name())).status());
  const absl::Status third = Submit(*acme_, JobOf(model.name())).status();
  EXPECT_THAT(third, FailsWith("QUOTA_EXCEEDED", HasSubstr("2 jobs waiting, at most 2")));
  const std::vector<QuotaViolation> violations = QuotaViolationsOf(third);
  ASSERT_EQ(violations.size(), 1);
  EXPECT_EQ(violations[0].subject, "tenants/acme");
  EXPECT_THAT(violations[0].description, HasSubstr("at most 2"));
  ASSERT_OK(Submit(*other_, JobOf(theirs.name())).status()) << "another's quota is its own";

  Stubs acme = StubsOf(*acme_), other = StubsOf(*other_);
  ASSERT_OK(WriteBlob(acme, "123456789012345").status());
  EXPECT_THAT(WriteBlob(acme, "1234567890").status(), FailsWith("QUOTA_EXCEEDED", _));
  ASSERT_OK(WriteBlob(acme, "12345").status());
  ASSERT_OK(WriteBlob(acme, "12345").status()) << "what is there is there";
  ASSERT_OK(WriteBlob(other, "123456789012345678901234567890").status());
  v1::ListTenantsResponse tenants;
  ASSERT_OK(Call(*admin_->admin, &v1::AdminService::Stub::ListTenants, v1::ListTenantsRequest(),
                 &tenants));
  std::map<std::string, v1::Tenant> by_name;
  for (const v1::Tenant& tenant : tenants.tenants()) by_name[tenant.name()] = tenant;
  EXPECT_EQ(by_name["acme"].bytes(), 20);
  EXPECT_EQ(by_name["acme"].max_bytes(), 20);
  EXPECT_EQ(by_name["acme"].queued_jobs(), 2);
  EXPECT_EQ(by_name["other"].bytes(), 30);
  EXPECT_THAT(
      Call(*acme_->admin, &v1::AdminService::Stub::ListTenants, v1::ListTenantsRequest(), &tenants),
      FailsWith("ROLE_REQUIRED", _));
  // Counted from the records after a restart.
  StartServer();
  admin_ = std::make_unique<Member>(ChannelWith(path("admin.token")));
  ASSERT_OK(Call(*admin_->admin, &v1::AdminService::Stub::ListTenants, v1::ListTenantsRequest(),
                 &tenants));
  for (const v1::Tenant& tenant : tenants.tenants()) by_name[tenant.name()] = tenant;
  EXPECT_EQ(by_name["acme"].bytes(), 20);
}

// What an upload declares is its tenant's from the first message on; what it leaves is after that.
TEST_F(TenantsTest, AnUnfinishedUploadIsItsTenantsAndReserved) {
  options_.dispatch.tenants["acme"] = {.max_bytes = 20};
  StartServer();
  admin_ = std::make_unique<Member>(ChannelWith(path("admin.token")));
  acme_ = Make(v1::Token::CLIENT, "acme");
  other_ = Make(v1::Token::CLIENT, "other");
  const std::string text = "a secret of 18 B..";
  v1::BlobRef blob;
  blob.set_sha256(Sha256Hex(text));
  blob.set_size_bytes(static_cast<int64_t>(text.size()));
  const auto committed = [&](Member& who) {
    v1::QueryWriteStatusRequest query;
    *query.mutable_blob() = blob;
    v1::QueryWriteStatusResponse status;
    EXPECT_OK(Call(*who.blobs, &v1::BlobService::Stub::QueryWriteStatus, query, &status));
    EXPECT_FALSE(status.complete());
    return status.committed_bytes();
  };
  const auto send = [&](Member& who, int64_t offset, const std::string& bytes) {
    grpc::ClientContext context;
    v1::WriteBlobResponse response;
    auto writer = who.blobs->WriteBlob(&context, &response);
    v1::WriteBlobRequest request;
    *request.mutable_blob() = blob;
    request.set_write_offset(offset);
    request.set_data(bytes);
    request.set_finish_write(true);
    writer->Write(request);
    writer->WritesDone();
    return FromGrpcStatus(writer->Finish());
  };
  Stubs acme = StubsOf(*acme_);
  {
    grpc::ClientContext context;
    v1::WriteBlobResponse response;
    auto writer = acme.blobs->WriteBlob(&context, &response);
    v1::WriteBlobRequest request;
    *request.mutable_blob() = blob;
    request.set_data(text.substr(0, 9));
    ASSERT_TRUE(writer->Write(request));
    while (committed(*acme_) < 9) absl::SleepFor(absl::Milliseconds(2));
    EXPECT_THAT(WriteBlob(acme, "abc").status(), FailsWith("QUOTA_EXCEEDED", _)) << "18 of 20";
    context.TryCancel();
    writer->Finish().error_code();
  }
  // Nine were left.
  const auto bytes = [&] {
    v1::ListTenantsResponse tenants;
    EXPECT_OK(Call(*admin_->admin, &v1::AdminService::Stub::ListTenants, v1::ListTenantsRequest(),
                   &tenants));
    for (const v1::Tenant& tenant : tenants.tenants()) {
      if (tenant.name() == "acme") return tenant.bytes();
    }
    return int64_t{0};
  };
  while (bytes() != 9) absl::SleepFor(absl::Milliseconds(2));
  EXPECT_EQ(committed(*other_), 0);
  EXPECT_THAT(send(*other_, 9, text.substr(9)), FailsWith("OFFSET_MISMATCH", _));
  EXPECT_EQ(committed(*acme_), 9) << "it was not touched";
  // A server that starts again knows of it.
  StartServer();
  admin_ = std::make_unique<Member>(ChannelWith(path("admin.token")));
  acme_ = std::make_unique<Member>(ChannelWith(path("token3")));
  EXPECT_EQ(bytes(), 9);
  EXPECT_EQ(committed(*acme_), 9);
  ASSERT_OK(send(*acme_, 9, text.substr(9)));
  EXPECT_EQ(bytes(), 18);
}

// Models cost the server's memory, and nobody collects them.
TEST(ModelQuotas, InventoriesAreNotWithoutNumber) {
  DispatchState state{DispatchOptions()};
  v1::Model large;
  large.set_tenant("acme");
  for (int i = 0; i < 40'000; ++i) {
    large.mutable_manifest()->add_layer_digests(std::string(64, 'x'));
  }
  Changes changes;
  for (int i = 0; i < 30; ++i) changes.models[absl::StrCat("models/m", i)] = large;
  state.Apply(std::move(changes), Moment());
  EXPECT_THAT(CheckModels(Draft(state, Moment()), "acme"),
              FailsWith("QUOTA_EXCEEDED", HasSubstr("30 models")));
  EXPECT_OK(CheckModels(Draft(state, Moment()), "other"));
}

// Where nobody is asked who calls, what a worker sends looks as what a client sends: only what a
// dataset names is a tenant's.
class OpenServerQuotas : public ServerTest {};

TEST_F(OpenServerQuotas, ResultsOfTasksAreNoTenants) {
  options_.dispatch.tenants["default"] = {.max_bytes = 20};
  StartServer();
  LWQ_ASSERT_OK_AND_ASSIGN(const v1::BlobRef blob, WriteBlob(*stubs_, std::string(30, 'x')));
  ASSERT_OK(WriteBlob(*stubs_, std::string(30, 'x')).status()) << "what is there is there";
  const auto bytes = [&] {
    v1::ListTenantsResponse tenants;
    EXPECT_OK(Call(*stubs_->admin, &v1::AdminService::Stub::ListTenants, v1::ListTenantsRequest(),
                   &tenants));
    return tenants.tenants_size() == 1 ? tenants.tenants(0).bytes() : -1;
  };
  EXPECT_EQ(bytes(), 0);
  v1::CreateDatasetRequest request;
  *request.mutable_dataset()->mutable_blob() = blob;
  request.mutable_dataset()->set_kind(v1::Dataset::TEXT);
  v1::Dataset dataset;
  EXPECT_THAT(Call(*stubs_->datasets, &v1::DatasetService::Stub::CreateDataset, request, &dataset),
              FailsWith("QUOTA_EXCEEDED", _));
  LWQ_ASSERT_OK_AND_ASSIGN(*request.mutable_dataset()->mutable_blob(),
                           WriteBlob(*stubs_, "some text"));
  ASSERT_OK(Call(*stubs_->datasets, &v1::DatasetService::Stub::CreateDataset, request, &dataset));
  EXPECT_EQ(bytes(), 9);
}

}  // namespace
}  // namespace lwq::testing
