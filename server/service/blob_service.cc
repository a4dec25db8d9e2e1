#include "server/service/blob_service.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/failpoint.h"
#include "base/failure.h"
#include "base/reasons.h"
#include "base/status_macros.h"
#include "server/service/deletion.h"
#include "server/service/tenancy.h"
#include "server/service/uploads.h"
#include "server/service/validation.h"

namespace lwq {
namespace {

constexpr char kBlobs[] = "BlobService";
constexpr char kArtifacts[] = "ArtifactService";
constexpr int64_t kChunkBytes = 256 << 10;
constexpr int64_t kMaxChunkBytes = 1 << 20;  // accepted; 256 KiB is what is asked for
constexpr int kMaxFindBlobs = 10'000;

BlobId IdOf(const v1::BlobRef& blob) { return {blob.sha256(), blob.size_bytes()}; }

// What a read call reads, found out on the blob executor.
struct ReadTarget {
  v1::BlobRef blob;
  int64_t offset = 0;
  int64_t limit = 0;
};
using ResolveTarget = std::function<absl::StatusOr<ReadTarget>(const Caller&)>;

// Streams a range of a blob, one chunk at a time: read on the blob executor, written, and again.
template <typename Response>
class ReadCall final : public grpc::ServerWriteReactor<Response>, public LongCall {
 public:
  ReadCall(ServiceEnv& env, grpc::CallbackServerContext* context, const char* service,
           const char* method, ResolveTarget resolve)
      : env_(env), resolve_(std::move(resolve)), record_(env, context, service, method, this) {}

  void Begin() {
    if (absl::Status admitted = record_.Admit(); !admitted.ok()) return End(admitted);
    if (env_.scheduler->draining) return End(DrainingError());
    Post([this] { Open(); });
  }
  void Drain() override {
    End(Failure(absl::StatusCode::kAborted, reasons::kDraining.name,
                "the server is shutting down: resume from the offset that was reached"));
  }
  void OnCancel() override { End(absl::CancelledError("the reader has gone")); }
  void OnWriteDone(bool ok) override {
    if (!ok) return End(absl::CancelledError("the reader has gone"));
    // Whoever started this write has left it: offset and message are the next chunk's.
    { MutexLock lock(&finish_mu_); }
    Post([this] { Next(); });
  }
  void OnDone() override {
    bool idle = false;
    {
      MutexLock lock(&mu_);
      done_ = true;
      idle = pending_ == 0;
    }
    if (idle) delete this;
  }

 private:
  // The object lives until all that is on the executor has run.
  void Post(std::function<void()> work) {
    {
      MutexLock lock(&mu_);
      if (done_) return;
      ++pending_;
    }
    auto run = [this, work = std::move(work)] {
      work();
      bool delete_now = false;
      {
        MutexLock lock(&mu_);
        --pending_;
        delete_now = done_ && pending_ == 0;
      }
      if (delete_now) delete this;
    };
    if (!env_.blob->PostAlways(std::move(run))) {
      {
        MutexLock lock(&mu_);
        --pending_;
      }
      End(OverloadedError());
    }
  }

  void Open() {
    absl::StatusOr<ReadTarget> target = resolve_(record_.caller());
    if (!target.ok()) return End(target.status());
    blob_ = target->blob;
    if (target->offset < 0 || target->limit < 0) {
      return End(Failure(reasons::kRangeInvalid, "offset and limit may not be negative"));
    }
    if (target->offset > blob_.size_bytes()) {
      return End(Failure(
          reasons::kOffsetOutOfRange,
          absl::StrCat("offset ", target->offset, " is past the end at ", blob_.size_bytes())));
    }
    absl::StatusOr<std::unique_ptr<BlobReader>> reader =
        env_.scheduler->blobs().OpenRead(IdOf(blob_));
    if (!reader.ok()) return End(reader.status());
    reader_ = *std::move(reader);
    offset_ = target->offset;
    // Not the sum of the two, which may pass the largest number there is.
    const int64_t left = blob_.size_bytes() - offset_;
    end_ = offset_ + (target->limit == 0 ? left : std::min(left, target->limit));
    Next();
  }

  void Next() {
    if (record_.finished()) return;
    if (absl::Status stays = record_.MayStay(); !stays.ok()) return End(stays);
    if (offset_ >= end_) return End(absl::OkStatus());
    absl::StatusOr<std::string> bytes =
        reader_->Read(offset_, std::min(kChunkBytes, end_ - offset_));
    if (!bytes.ok()) return End(bytes.status());
    message_.Clear();
    message_.set_offset(offset_);
    if constexpr (std::is_same_v<Response, v1::ReadArtifactResponse>) {
      if (first_) *message_.mutable_file() = blob_;
    }
    first_ = false;
    offset_ += static_cast<int64_t>(bytes->size());
    env_.scheduler->metrics().BlobIo("read", static_cast<int64_t>(bytes->size()));
    *message_.mutable_data() = *std::move(bytes);
    Failpoint("download.before_chunk");
    MutexLock lock(&finish_mu_);
    if (!record_.finished()) this->StartWrite(&message_);
  }

  void End(const absl::Status& status) {
    MutexLock lock(&finish_mu_);
    if (record_.TakeFinish()) this->Finish(record_.Close(status));
  }

  ServiceEnv& env_;
  const ResolveTarget resolve_;
  CallRecord record_;
  std::unique_ptr<BlobReader> reader_;
  v1::BlobRef blob_;
  int64_t offset_ = 0;
  int64_t end_ = 0;
  bool first_ = true;
  Response message_;
  Mutex finish_mu_;
  Mutex mu_;
  int pending_ ABSL_GUARDED_BY(mu_) = 0;
  bool done_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

grpc::ServerUnaryReactor* BlobServiceImpl::FindMissingBlobs(
    grpc::CallbackServerContext* context, const v1::FindMissingBlobsRequest* request,
    v1::FindMissingBlobsResponse* response) {
  return RunUnaryAs(env_, context, kBlobs, "FindMissingBlobs", *env_.blob,
                    [=, this](const Caller& caller) -> absl::Status {
                      if (request->blobs_size() > kMaxFindBlobs) {
                        return Failure(reasons::kFieldInvalid,
                                       absl::StrCat("blobs: ", request->blobs_size(), ", at most ",
                                                    kMaxFindBlobs));
                      }
                      std::vector<BlobId> ids;
                      for (const v1::BlobRef& blob : request->blobs()) ids.push_back(IdOf(blob));
                      LWQ_ASSIGN_OR_RETURN(const std::vector<BlobId> missing,
                                           MissingFor(*env_.scheduler, caller, ids));
                      for (const BlobId& id : missing) {
                        v1::BlobRef& blob = *response->add_missing();
                        blob.set_sha256(id.sha256);
                        blob.set_size_bytes(id.size_bytes);
                      }
                      return absl::OkStatus();
                    });
}

grpc::ServerUnaryReactor* BlobServiceImpl::QueryWriteStatus(
    grpc::CallbackServerContext* context, const v1::QueryWriteStatusRequest* request,
    v1::QueryWriteStatusResponse* response) {
  return RunUnaryAs(env_, context, kBlobs, "QueryWriteStatus", *env_.blob,
                    [=, this](const Caller& caller) -> absl::Status {
                      Scheduler& scheduler = *env_.scheduler;
                      const BlobId id = IdOf(request->blob());
                      LWQ_ASSIGN_OR_RETURN(const std::vector<BlobId> missing,
                                           MissingFor(scheduler, caller, {id}));
                      response->set_complete(missing.empty());
                      response->set_committed_bytes(id.size_bytes);
                      if (missing.empty()) return absl::OkStatus();
                      LWQ_ASSIGN_OR_RETURN(const int64_t committed,
                                           UploadedFor(scheduler, caller, id));
                      response->set_committed_bytes(committed);
                      return absl::OkStatus();
                    });
}

namespace {

// Takes an upload, one chunk at a time: received, written on the blob executor, and again.
class WriteCall final : public grpc::ServerReadReactor<v1::WriteBlobRequest>, public LongCall {
 public:
  WriteCall(ServiceEnv& env, grpc::CallbackServerContext* context, v1::WriteBlobResponse* response)
      : env_(env), response_(response), record_(env, context, kBlobs, "WriteBlob", this) {}

  void Begin() {
    if (absl::Status admitted = record_.Admit(); !admitted.ok()) return End(admitted);
    if (env_.scheduler->draining) return End(DrainingError());
    StartRead(&message_);
  }
  void Drain() override { End(DrainingError()); }
  void OnCancel() override { End(absl::CancelledError("the writer has gone")); }
  void OnReadDone(bool ok) override {
    if (!ok) {
      return End(Failure(reasons::kFieldInvalid, "the stream ended before finish_write"));
    }
    {
      MutexLock lock(&mu_);
      if (done_) return;
      busy_ = true;
    }
    if (!env_.blob->PostAlways([this] { Take(); })) {
      {
        MutexLock lock(&mu_);
        busy_ = false;
      }
      End(OverloadedError());
    }
  }
  void OnDone() override {
    bool idle = false;
    {
      MutexLock lock(&mu_);
      done_ = true;
      idle = !busy_;
    }
    if (idle) delete this;
  }

 private:
  void Take() {
    bool more = false;
    if (!record_.finished()) {
      absl::StatusOr<bool> finished = Append();
      if (!finished.ok()) {
        writer_.reset();
        End(finished.status());
      } else if (*finished) {
        writer_.reset();
        End(absl::OkStatus());
      } else {
        more = true;
      }
    }
    bool delete_now = false;
    {
      MutexLock lock(&mu_);
      busy_ = false;
      delete_now = done_;
      // Under the lock, so that OnDone cannot have deleted this.
      if (more && !done_ && !record_.finished()) StartRead(&message_);
    }
    if (delete_now) delete this;
  }

  // True when the blob is there whole.
  absl::StatusOr<bool> Append() {
    LWQ_RETURN_IF_ERROR(record_.MayStay());
    Scheduler& scheduler = *env_.scheduler;
    if (!started_) {
      started_ = true;
      id_ = IdOf(message_.blob());
      record_.SetResource(absl::StrCat("blobs/", id_.sha256.substr(0, 64)));
      LWQ_ASSIGN_OR_RETURN(const bool there, HasFor(scheduler, record_.caller(), id_));
      response_->set_committed_bytes(id_.size_bytes);
      if (there) {
        LWQ_RETURN_IF_ERROR(NoteUploadFound(scheduler, record_.caller(), id_));
        return true;
      }
      LWQ_ASSIGN_OR_RETURN(writer_, OpenUpload(scheduler, record_.caller(), id_));
      if (message_.write_offset() != writer_->committed_bytes()) {
        return Failure(reasons::kOffsetMismatch,
                       absl::StrCat("write_offset ", message_.write_offset(), ", ",
                                    writer_->committed_bytes(), " bytes are there"));
      }
    }
    if (static_cast<int64_t>(message_.data().size()) > kMaxChunkBytes) {
      return Failure(reasons::kFieldInvalid, absl::StrCat("data: ", message_.data().size(),
                                                          " bytes, at most ", kMaxChunkBytes));
    }
    LWQ_RETURN_IF_ERROR(writer_->Append(message_.data()));
    scheduler.metrics().BlobIo("write", static_cast<int64_t>(message_.data().size()));
    if (!message_.finish_write()) return false;
    LWQ_RETURN_IF_ERROR(writer_->Finish());
    Failpoint("upload.before_answer");
    return true;
  }

  void End(const absl::Status& status) {
    if (record_.TakeFinish()) Finish(record_.Close(status));
  }

  ServiceEnv& env_;
  v1::WriteBlobResponse* const response_;
  CallRecord record_;
  v1::WriteBlobRequest message_;
  bool started_ = false;
  BlobId id_;
  std::unique_ptr<BlobWriter> writer_;
  Mutex mu_;
  bool busy_ ABSL_GUARDED_BY(mu_) = false;
  bool done_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

grpc::ServerReadReactor<v1::WriteBlobRequest>* BlobServiceImpl::WriteBlob(
    grpc::CallbackServerContext* context, v1::WriteBlobResponse* response) {
  auto* call = new WriteCall(env_, context, response);
  call->Begin();
  return call;
}

grpc::ServerWriteReactor<v1::ReadBlobResponse>* BlobServiceImpl::ReadBlob(
    grpc::CallbackServerContext* context, const v1::ReadBlobRequest* request) {
  auto resolve = [this, r = *request](const Caller& caller) -> absl::StatusOr<ReadTarget> {
    bool may_read = caller.role != kWorker;
    if (!may_read) {
      env_.scheduler->View([&](const DispatchState& state) {
        may_read = lease_blobs_.IsRead(state, r.blob().sha256());
      });
    }
    if (!may_read) {
      return Failure(reasons::kBlobNotLeased,
                     absl::StrCat("blob ", r.blob().sha256().substr(0, 64),
                                  ": no task that a worker has now reads it"));
    }
    if (!caller.sees_all()) {
      LWQ_ASSIGN_OR_RETURN(const bool there, HasFor(*env_.scheduler, caller, IdOf(r.blob())));
      if (!there) {
        return Failure(reasons::kBlobMissing,
                       absl::StrCat("blob ", r.blob().sha256().substr(0, 64), " is not there"));
      }
    }
    return ReadTarget{r.blob(), r.read_offset(), r.read_limit()};
  };
  auto* call = new ReadCall<v1::ReadBlobResponse>(env_, context, kBlobs, "ReadBlob", resolve);
  call->Begin();
  return call;
}

grpc::ServerUnaryReactor* ArtifactServiceImpl::GetArtifact(grpc::CallbackServerContext* context,
                                                           const v1::GetArtifactRequest* request,
                                                           v1::Artifact* response) {
  return RunUnaryAs(env_, context, kArtifacts, "GetArtifact", *env_.read,
                    [=, this](const Caller& caller) -> absl::Status {
                      LWQ_ASSIGN_OR_RETURN(*response,
                                           SeenArtifact(*env_.scheduler, caller, request->name()));
                      return absl::OkStatus();
                    });
}

grpc::ServerUnaryReactor* ArtifactServiceImpl::ListArtifacts(
    grpc::CallbackServerContext* context, const v1::ListArtifactsRequest* request,
    v1::ListArtifactsResponse* response) {
  return RunUnaryAs(
      env_, context, kArtifacts, "ListArtifacts", *env_.read,
      [=, this](const Caller& caller) -> absl::Status {
        ListQuery query;
        LWQ_ASSIGN_OR_RETURN(query.tenants,
                             TenantsToList(caller, request->tenant(), request->all_tenants()));
        query.order = ListQuery::Order::kNewestFirst;
        LWQ_ASSIGN_OR_RETURN(query.limit, PageSize(request->page_size(), 50));
        LWQ_RETURN_IF_ERROR(ApplyPageToken(request->page_token(), "artifacts", query));
        LWQ_ASSIGN_OR_RETURN(const std::vector<Record> rows,
                             env_.scheduler->store().List(Table::kArtifacts, query));
        size_t bytes = 0;
        for (const Record& row : rows) {
          response->add_artifacts()->ParseFromString(row.value);
          bytes += row.value.size();
          const bool full = response->artifacts_size() == query.limit || bytes > kMaxPageBytes;
          if (!full) continue;
          response->set_next_page_token(MakePageToken(row, "artifacts"));
          break;
        }
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* ArtifactServiceImpl::DeleteArtifact(
    grpc::CallbackServerContext* context, const v1::DeleteArtifactRequest* request,
    v1::DeleteArtifactResponse*) {
  return RunUnaryAs(
      env_, context, kArtifacts, "DeleteArtifact", *env_.write,
      [=, this](const Caller& caller) -> absl::Status {
        LWQ_RETURN_IF_ERROR(CheckName(request->name(), "artifacts"));
        LWQ_ASSIGN_OR_RETURN(const RequestMark mark, MarkOf(*request, caller.tenant));
        LWQ_ASSIGN_OR_RETURN(const std::string replayed,
                             FindRequest(env_.scheduler->store(), mark));
        if (!replayed.empty()) return absl::OkStatus();
        LWQ_RETURN_IF_ERROR(SeenArtifact(*env_.scheduler, caller, request->name()).status());
        return lwq::DeleteArtifact(*env_.scheduler, request->name(), mark);
      },
      {request});
}

grpc::ServerWriteReactor<v1::ReadArtifactResponse>* ArtifactServiceImpl::ReadArtifact(
    grpc::CallbackServerContext* context, const v1::ReadArtifactRequest* request) {
  auto resolve = [this, r = *request](const Caller& caller) -> absl::StatusOr<ReadTarget> {
    LWQ_ASSIGN_OR_RETURN(const v1::Artifact artifact,
                         SeenArtifact(*env_.scheduler, caller, r.name()));
    for (const v1::NamedBlob& file : artifact.files()) {
      if (file.name() != r.file()) continue;
      if (!r.if_sha256().empty() && r.if_sha256() != file.blob().sha256()) {
        return PreconditionFailure(reasons::kDigestMismatch.name,
                                   absl::StrCat(r.file(), " is ", file.blob().sha256()));
      }
      return ReadTarget{file.blob(), r.read_offset(), r.read_limit()};
    }
    return Failure(reasons::kNotFound,
                   absl::StrCat(r.name(), " has no file \"", r.file().substr(0, 200), "\""));
  };
  auto* call =
      new ReadCall<v1::ReadArtifactResponse>(env_, context, kArtifacts, "ReadArtifact", resolve);
  call->Begin();
  return call;
}

}  // namespace lwq
