// Submits a job, watches it to its end and brings its files.
// usage: lwq-example SERVER MODEL_DIR BITS_PER_WEIGHT OUT
// SERVER is host:port or unix:/path; MODEL_DIR is a directory of the server's machine.
package main

//go:generate ./generate.sh

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"lwq-example/lwqv1"
)

const (
	callTime  = 30 * time.Second
	idleTime  = 45 * time.Second // the server says something every 15 s
	retryTime = 60 * time.Second // how long a server that is away is waited for
)

// requestID makes sending a request again harmless.
func requestID() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // a random UUID
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// reason is what to branch on: BUDGET_INFEASIBLE, RESUME_TOKEN_AHEAD, ...
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "lwq.dev" {
			return info.GetReason()
		}
	}
	return status.Code(err).String()
}

// retries tells whether a call may be made again; it sleeps before it says so.
type retries struct{ since time.Time }

func (r *retries) alive() { r.since = time.Time{} }

func (r *retries) again(err error) bool {
	code := status.Code(err)
	if code != codes.Unavailable && code != codes.DeadlineExceeded && code != codes.Aborted && code != codes.Canceled {
		return false
	}
	if r.since.IsZero() {
		r.since = time.Now()
	}
	time.Sleep(500 * time.Millisecond)
	return time.Since(r.since) < retryTime
}

// retried makes a unary call until it is answered.
func retried(call func(context.Context) error) error {
	var r retries
	for {
		ctx, cancel := context.WithTimeout(context.Background(), callTime)
		err := call(ctx)
		cancel()
		if err == nil || !r.again(err) {
			return err
		}
	}
}

func security() (grpc.DialOption, error) {
	ca := os.Getenv("LWQ_TLS_CA")
	if ca == "" {
		return grpc.WithInsecure(), nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", ca)
	}
	settings := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if cert := os.Getenv("LWQ_TLS_CERT"); cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, os.Getenv("LWQ_TLS_KEY"))
		if err != nil {
			return nil, err
		}
		settings.Certificates = []tls.Certificate{pair}
	}
	return grpc.WithTransportCredentials(credentials.NewTLS(settings)), nil
}

// addModel makes the directory known as a model, and waits until a worker has checked it.
func addModel(conn *grpc.ClientConn, directory string) (*lwqv1.Model, error) {
	client := lwqv1.NewModelServiceClient(conn)
	request := &lwqv1.CreateModelRequest{Source: &lwqv1.ModelSource{Directory: directory}, RequestId: requestID()}
	var model *lwqv1.Model
	err := retried(func(ctx context.Context) (err error) { model, err = client.CreateModel(ctx, request); return })
	for err == nil && model.GetState() == lwqv1.Model_VERIFYING {
		ask := &lwqv1.GetModelRequest{Name: model.GetName(), WaitSeconds: 10}
		err = retried(func(ctx context.Context) (err error) { model, err = client.GetModel(ctx, ask); return })
	}
	if err == nil && model.GetState() == lwqv1.Model_REJECTED {
		err = fmt.Errorf("%s: %s", model.GetFailure().GetReason(), model.GetFailure().GetMessage())
	}
	return model, err
}

func submit(conn *grpc.ClientConn, model string, bits float64) (*lwqv1.Job, error) {
	spec := &lwqv1.QuantizeSpec{Model: model, Budget: &lwqv1.Budget{Kind: &lwqv1.Budget_BitsPerWeight{BitsPerWeight: bits}}}
	if quick := os.Getenv("LWQ_QUICK"); quick != "" { // seconds instead of minutes, and a plainer plan
		spec.Method, spec.Scorer, spec.Allocator = "rtn", "lim", "two-level"
		spec.Calibration = &lwqv1.Calibration{NumTokens: 512}
	}
	request := &lwqv1.CreateJobRequest{
		Job:       &lwqv1.Job{Spec: &lwqv1.JobSpec{Work: &lwqv1.JobSpec_Quantize{Quantize: spec}}},
		RequestId: requestID(),
	}
	var job *lwqv1.Job
	err := retried(func(ctx context.Context) (err error) {
		job, err = lwqv1.NewJobServiceClient(conn).CreateJob(ctx, request)
		return
	})
	return job, err
}

func ended(job *lwqv1.Job) bool {
	state := job.GetState()
	return state == lwqv1.Job_SUCCEEDED || state == lwqv1.Job_FAILED || state == lwqv1.Job_CANCELLED
}

// watch follows the job over restarts of the server, and returns it when it has ended.
func watch(conn *grpc.ClientConn, name string) (*lwqv1.Job, error) {
	client := lwqv1.NewJobServiceClient(conn)
	request := &lwqv1.WatchJobRequest{Name: name}
	var r retries
	for {
		err := stream(client, request, &r)
		if err == nil {
			var job *lwqv1.Job
			ask := &lwqv1.GetJobRequest{Name: name}
			err = retried(func(ctx context.Context) (err error) { job, err = client.GetJob(ctx, ask); return })
			if err != nil || ended(job) {
				return job, err
			}
			continue
		}
		if reason(err) == "RESUME_TOKEN_AHEAD" && request.ResumeSeq > 0 {
			request.ResumeSeq = 0 // the server's records were put back: from a snapshot again
		} else if !r.again(err) {
			return nil, err
		}
	}
}

// stream reads events until the server ends them; request then says where to go on.
func stream(client lwqv1.JobServiceClient, request *lwqv1.WatchJobRequest, r *retries) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	idle := time.AfterFunc(idleTime, cancel)
	defer idle.Stop()
	events, err := client.WatchJob(ctx, request)
	if err != nil {
		return err
	}
	for {
		event, err := events.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if status.Code(err) == codes.Canceled { // by the server that stops, or by the silence
			return status.Error(codes.Unavailable, "the stream of events was ended")
		}
		if err != nil {
			return err
		}
		r.alive()
		idle.Reset(idleTime)
		if event.GetSeq() > request.ResumeSeq {
			request.ResumeSeq = event.GetSeq()
		}
		if progress := event.GetProgress(); progress != nil {
			fmt.Printf("%3.0f %%  %s\n", 100*progress.GetFraction(), progress.GetCurrent())
		}
	}
}

// download brings one file, from where an earlier try was cut.
func download(client lwqv1.ArtifactServiceClient, artifact string, file *lwqv1.NamedBlob, folder string) error {
	name := file.GetName()
	if name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return fmt.Errorf("the artifact's file %q has no plain name", name)
	}
	out, err := os.OpenFile(filepath.Join(folder, name), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	hash := sha256.New()
	offset, err := io.Copy(hash, out) // what is there
	if err != nil {
		return err
	}
	var r retries
	for offset < file.GetBlob().GetSizeBytes() {
		err = read(client, &lwqv1.ReadArtifactRequest{Name: artifact, File: name, ReadOffset: offset}, func(at int64, data []byte) error {
			if at != offset {
				return fmt.Errorf("%s: the server sent bytes from %d, expected from %d", name, at, offset)
			}
			r.alive()
			offset += int64(len(data))
			hash.Write(data)
			_, err := out.Write(data)
			return err
		})
		if err == nil && offset < file.GetBlob().GetSizeBytes() {
			err = fmt.Errorf("%s: the server ended after %d of %d bytes", name, offset, file.GetBlob().GetSizeBytes())
		}
		if err != nil && !r.again(err) {
			return err
		}
	}
	if got := fmt.Sprintf("%x", hash.Sum(nil)); got != file.GetBlob().GetSha256() {
		os.Remove(out.Name())
		return fmt.Errorf("%s has the SHA-256 %s, expected %s", name, got, file.GetBlob().GetSha256())
	}
	return out.Sync()
}

func read(client lwqv1.ArtifactServiceClient, request *lwqv1.ReadArtifactRequest, take func(int64, []byte) error) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	parts, err := client.ReadArtifact(ctx, request)
	for err == nil {
		var part *lwqv1.ReadArtifactResponse
		if part, err = parts.Recv(); err == nil {
			err = take(part.GetOffset(), part.GetData())
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func run(server, directory, bits, out string) error {
	budget, err := strconv.ParseFloat(bits, 64)
	if err != nil {
		return err
	}
	secured, err := security()
	if err != nil {
		return err
	}
	conn, err := grpc.Dial(server, secured, grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}))
	if err != nil {
		return err
	}
	defer conn.Close()
	model, err := addModel(conn, directory)
	if err != nil {
		return err
	}
	job, err := submit(conn, model.GetName(), budget)
	if err != nil {
		return err
	}
	fmt.Println("submitted", job.GetName())
	if job, err = watch(conn, job.GetName()); err != nil {
		return err
	}
	if job.GetState() != lwqv1.Job_SUCCEEDED {
		return fmt.Errorf("%s: %s: %s", job.GetState(), job.GetFailure().GetReason(), job.GetFailure().GetMessage())
	}
	artifacts := lwqv1.NewArtifactServiceClient(conn)
	var artifact *lwqv1.Artifact
	ask := &lwqv1.GetArtifactRequest{Name: job.GetArtifact()}
	if err = retried(func(ctx context.Context) (err error) { artifact, err = artifacts.GetArtifact(ctx, ask); return }); err != nil {
		return err
	}
	if err = os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, file := range artifact.GetFiles() {
		if err = download(artifacts, artifact.GetName(), file, out); err != nil {
			return err
		}
	}
	fmt.Printf("%.3f bits per weight, %d bytes of weights in %s\n", job.GetPlan().GetBitsPerWeight(), job.GetPlan().GetWeightFileBytes(), out)
	return nil
}

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: lwq-example SERVER MODEL_DIR BITS_PER_WEIGHT OUT")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, reason(err)+":", status.Convert(err).Message())
		os.Exit(1)
	}
}
