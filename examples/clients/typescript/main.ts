// Submits a job, watches it to its end and brings its files.
// usage: npm start -- SERVER MODEL_DIR BITS_PER_WEIGHT OUT
// SERVER is host:port or unix:/path; MODEL_DIR is a directory of the server's machine.
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { fileURLToPath } from "node:url";

import * as grpc from "@grpc/grpc-js";
import * as protoLoader from "@grpc/proto-loader";

const CALL_MS = 30_000;
const IDLE_MS = 45_000; // the server says something every 15 s
const RETRY_MS = 60_000; // how long a server that is away is waited for

// The messages that are used here, as proto-loader gives them: int64 as text, enums by name, all fields there.
interface Failure { reason: string; message: string }
interface Model { name: string; state: string; failure: Failure | null }
interface Progress { fraction: number; current: string }
interface Job {
  name: string;
  state: string;
  artifact: string;
  failure: Failure | null;
  plan: { bits_per_weight: number; weight_file_bytes: string } | null;
}
interface JobEvent { seq: string; progress?: Progress }
interface NamedBlob { name: string; blob: { sha256: string; size_bytes: string } }
interface Artifact { name: string; files: NamedBlob[] }
interface Part { offset: string; data: Uint8Array }

const here = path.dirname(fileURLToPath(import.meta.url));
const root = [here, path.dirname(here)].map((folder) => path.join(folder, "../../..")).find((folder) => fs.existsSync(path.join(folder, "proto/lwq/v1")));
if (root === undefined) throw new Error("the protos are found from a checkout of lwq: run this from examples/clients/typescript");
const definition = protoLoader.loadSync(["job", "model", "artifact"].map((name) => `proto/lwq/v1/${name}_service.proto`), {
  includeDirs: [root], keepCase: true, longs: String, enums: String, defaults: true, oneofs: true,
});
const api = (grpc.loadPackageDefinition(definition) as any).lwq.v1;

function security(): grpc.ChannelCredentials {
  const [ca, cert, key] = ["CA", "CERT", "KEY"].map((name) => process.env[`LWQ_TLS_${name}`]);
  if (!ca) return grpc.credentials.createInsecure();
  const read = (name: string | undefined) => (name ? fs.readFileSync(name) : null);
  return grpc.credentials.createSsl(read(ca), read(key), read(cert));
}

// What to branch on: BUDGET_INFEASIBLE, RESUME_TOKEN_AHEAD, ... Also in google.rpc.ErrorInfo of the trailer
// grpc-status-details-bin, for programs that decode it.
function reason(error: grpc.ServiceError): string {
  return String(error.metadata?.get("lwq-reason")[0] ?? grpc.status[error.code]);
}

// Tells whether a call may be made again, after a pause.
class Retries {
  private since = 0;

  alive(): void { this.since = 0; }

  async again(error: grpc.ServiceError): Promise<boolean> {
    if (![grpc.status.UNAVAILABLE, grpc.status.DEADLINE_EXCEEDED, grpc.status.ABORTED, grpc.status.CANCELLED].includes(error.code)) return false;
    if (this.since === 0) this.since = Date.now();
    await new Promise((resolve) => setTimeout(resolve, 500));
    return Date.now() - this.since < RETRY_MS;
  }
}

// The answer of a unary call, made until there is one.
async function call<T>(client: any, method: string, request: object): Promise<T> {
  const retries = new Retries();
  for (;;) {
    try {
      return await new Promise<T>((resolve, reject) => {
        client[method](request, { deadline: Date.now() + CALL_MS }, (error: grpc.ServiceError | null, answer: T) => (error ? reject(error) : resolve(answer)));
      });
    } catch (error) {
      if (!(await retries.again(error as grpc.ServiceError))) throw error;
    }
  }
}

// Reads a stream to its end; ends it after a silence.
async function each<T>(stream: grpc.ClientReadableStream<T>, take: (message: T) => void): Promise<void> {
  let silence = setTimeout(() => stream.cancel(), IDLE_MS);
  try {
    for await (const message of stream) {
      clearTimeout(silence);
      silence = setTimeout(() => stream.cancel(), IDLE_MS);
      take(message as T);
    }
  } finally {
    clearTimeout(silence);
  }
}

async function addModel(models: any, directory: string): Promise<Model> {
  let model = await call<Model>(models, "CreateModel", { source: { directory }, request_id: crypto.randomUUID() });
  while (model.state === "VERIFYING") model = await call<Model>(models, "GetModel", { name: model.name, wait_seconds: 10 });
  if (model.state === "REJECTED") throw new Error(`${model.failure?.reason}: ${model.failure?.message}`);
  return model;
}

// Follows the job over restarts of the server, and returns it when it has ended.
async function watch(jobs: any, name: string): Promise<Job> {
  const retries = new Retries();
  let seen = 0n;
  for (;;) {
    try {
      await each<JobEvent>(jobs.WatchJob({ name, resume_seq: seen.toString() }), (event) => {
        retries.alive();
        if (BigInt(event.seq) > seen) seen = BigInt(event.seq);
        if (event.progress) console.log(`${(100 * event.progress.fraction).toFixed(0).padStart(3)} %  ${event.progress.current}`);
      });
      const job = await call<Job>(jobs, "GetJob", { name });
      if (["SUCCEEDED", "FAILED", "CANCELLED"].includes(job.state)) return job;
    } catch (e) {
      const error = e as grpc.ServiceError;
      if (reason(error) === "RESUME_TOKEN_AHEAD" && seen > 0n) seen = 0n; // the records were put back: from a snapshot again
      else if (!(await retries.again(error))) throw error;
    }
  }
}

// Brings one file, from where an earlier try was cut.
async function download(artifacts: any, artifact: Artifact, file: NamedBlob, folder: string): Promise<void> {
  if (path.basename(file.name) !== file.name || file.name.startsWith(".")) throw new Error(`the artifact's file "${file.name}" has no plain name`);
  const target = path.join(folder, file.name);
  const size = Number(file.blob.size_bytes);
  const hash = crypto.createHash("sha256");
  if (fs.existsSync(target)) for await (const piece of fs.createReadStream(target)) hash.update(piece);
  const out = fs.openSync(target, "a");
  try {
    const retries = new Retries();
    let offset = fs.fstatSync(out).size;
    while (offset < size) {
      try {
        await each<Part>(artifacts.ReadArtifact({ name: artifact.name, file: file.name, read_offset: offset }), (part) => {
          if (Number(part.offset) !== offset) throw new Error(`${file.name}: the server sent bytes from ${part.offset}, expected from ${offset}`);
          retries.alive();
          fs.writeSync(out, part.data);
          hash.update(part.data);
          offset += part.data.length;
        });
        if (offset < size) throw new Error(`${file.name}: the server ended after ${offset} of ${size} bytes`);
      } catch (error) {
        if (!(await retries.again(error as grpc.ServiceError))) throw error;
      }
    }
    fs.fsyncSync(out);
  } finally {
    fs.closeSync(out);
  }
  const got = hash.digest("hex");
  if (got !== file.blob.sha256) {
    fs.unlinkSync(target);
    throw new Error(`${file.name} has the SHA-256 ${got}, expected ${file.blob.sha256}`);
  }
}

async function main([server, directory, bits, out]: string[]): Promise<void> {
  const connect = (service: string) =>
    new api[service](server, security(), { "grpc.keepalive_time_ms": 30_000, "grpc.keepalive_timeout_ms": 10_000 });
  const model = await addModel(connect("ModelService"), directory);
  const jobs = connect("JobService");
  const quick = process.env.LWQ_QUICK // seconds instead of minutes, and a plainer plan
    ? { method: "rtn", scorer: "lim", allocator: "two-level", calibration: { num_tokens: 512 } } : {};
  const quantize = { model: model.name, budget: { bits_per_weight: Number(bits) }, ...quick };
  const submitted = await call<Job>(jobs, "CreateJob", { job: { spec: { quantize } }, request_id: crypto.randomUUID() });
  console.log("submitted", submitted.name);
  const job = await watch(jobs, submitted.name);
  if (job.state !== "SUCCEEDED") throw new Error(`${job.state}: ${job.failure?.reason}: ${job.failure?.message}`);
  const artifacts = connect("ArtifactService");
  const artifact = await call<Artifact>(artifacts, "GetArtifact", { name: job.artifact });
  fs.mkdirSync(out, { recursive: true });
  for (const file of artifact.files) await download(artifacts, artifact, file, out);
  console.log(`${job.plan?.bits_per_weight.toFixed(3)} bits per weight, ${job.plan?.weight_file_bytes} bytes of weights in ${out}`);
}

const words = process.argv.slice(2);
if (words.length !== 4) {
  console.error("usage: npm start -- SERVER MODEL_DIR BITS_PER_WEIGHT OUT");
  process.exit(2);
}
main(words).then(() => process.exit(0), (error) => {
  console.error(typeof error.code === "number" ? `${reason(error)}: ${error.details}` : error.message); // a file's error has a code of letters
  process.exit(1);
});
