"""What a user's program does with the installed client; started by python_client_test.py.
usage: python_client_use.py SERVER MODEL_DIR DIR DIGEST SECURED_SERVER CERTIFICATES_DIR TOKEN_SERVER ADMIN_TOKEN"""
import asyncio
import hashlib
import json
import os
import pathlib
import sys
import time

import grpc

import lwq

SERVER, MODEL, DIR, DIGEST = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), sys.argv[4]
SECURED, CERTIFICATES = sys.argv[5], pathlib.Path(sys.argv[6])
BY_TOKEN, ADMIN_TOKEN = sys.argv[7], pathlib.Path(sys.argv[8])
OPTIONS = dict(method="rtn", scorer="lim", allocator="two-level", calibration=MODEL / "held-out.txt", calibration_tokens=512,
               eval_text=MODEL / "held-out.txt", eval_tokens=512)


def ok(good, what):
    print(f"{'ok  ' if good else 'FAIL'} {what}", flush=True)
    if not good:
        sys.exit(1)


def raised(error, reason, call):
    began = time.monotonic()
    try:
        call()
    except error as e:
        ok(e.reason == reason, f"{error.__name__} {e.reason}, after {time.monotonic() - began:.1f} s: {e.message[:100]}")
        return e
    ok(False, f"{error.__name__} {reason} was not raised")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def use_budgets():
    for text, field, value in (("3.25bpw", "bits_per_weight", 3.25), ("900MiB", "file_bytes", 900 << 20),
                               ("2.3 GB", "file_bytes", 2_300_000_000),
                               ("5200000", "file_bytes", 5_200_000), ("Q4_K_M", "recipe", "Q4_K_M"), (5200000, "file_bytes", 5_200_000),
                               ("50%", "source_percent", 50), ("4bit", "bits_per_weight", 4.25)):
        ok(getattr(lwq.parse_budget(text), field) == value, f"budget {text!r}")
    device = lwq.parse_budget("20GB@8192x4").device
    ok((device.bytes, device.context_length, device.batch_size) == (20_000_000_000, 8192, 4), "budget 20GB@8192x4")
    for text in ("", "bpw", "3,25bpw", "-1MB", "1e9", "4 XB", "20GB@", "20GB@8192x", "0bpw", "99bpw", "0%", "101%", "5bit", "nanbpw"):
        raised(lwq.InvalidArgument, "BUDGET_INVALID", lambda: lwq.parse_budget(text))


def use_quantize(client):
    seen = []
    job = client.quantize(MODEL, budget="4.5bpw", out=DIR / "artifact", progress=seen.append, labels={"team": "x"}, **OPTIONS)
    ok(job.state == lwq.types.Job.SUCCEEDED and dict(job.labels) == {"team": "x"}, f"{job.name} succeeded")
    ok(sha256(DIR / "artifact/model.safetensors") == DIGEST, "the same bytes as lwqctl's")
    report = json.loads((DIR / "artifact/lwq-report.json").read_text())
    ok(report["lwq_report"] == 1 and report["job"]["plan"]["units"] and report["artifact"]["files"], "with the job's report")
    card = (DIR / "artifact/README.md").read_text()
    ok(DIGEST in card and "KL to the source, held-out.txt: mean" in card and "4.5 bits per weight" in card, "and a model card")
    ok(f"# {MODEL.name} at " in card, "that names the model and the text as people do")
    fractions = [p.fraction for p in seen]
    ok(len(seen) > 1 and fractions == sorted(fractions) and fractions[-1] == 1, f"{len(seen)} steps of progress, never back")
    ok(job.evaluations and any(e.text.kl.mean > 0 for e in job.evaluations), "measured on the text that was sent")
    ok(client.job(job.name).name == job.name and job.name in [j.name for j in client.jobs()], "found again by its name, and in the list")
    ok(client.workers()[0].registration.device == "cpu" and client.server_info().version, "workers and the server's version")
    plan = client.plan("models/sample", "4.5bpw", **OPTIONS)
    ok(plan.smallest_bytes < plan.largest_bytes, "plan without a job")
    return job


def use_downloads(client, job):
    whole = DIR / "artifact/model.safetensors"
    size = whole.stat().st_size
    partial = DIR / "again.partial"
    partial.mkdir()
    # As an interrupted call leaves it: the first part of the largest file, right; and a file that has gone bad.
    (partial / "model.safetensors.partial").write_bytes(whole.read_bytes()[:size - 300_000])
    (partial / "config.json").write_text("{}")
    (partial / "stranger").write_text("of something else")
    got = []
    client.download(job.name, DIR / "again", progress=lambda done, total: got.append((done, total)))
    ok(sha256(DIR / "again/model.safetensors") == DIGEST, "a download that was cut is completed")
    received = len(got)  # messages of at most 256 KiB, and one for each file that ends
    ok(received < size / (256 << 10), f"by what was missing: {received} messages for {size} bytes")
    ok((DIR / "again/config.json").read_bytes() == (DIR / "artifact/config.json").read_bytes(), "a damaged file is fetched anew")
    ok(not (DIR / "again/stranger").exists() and not partial.exists(), "nothing else is left")
    wrong = DIR / "wrong.partial"
    wrong.mkdir()
    (wrong / "model.safetensors.partial").write_bytes(b"x" * (size - 10))
    client.download(job.name, DIR / "wrong")
    ok(sha256(DIR / "wrong/model.safetensors") == DIGEST, "a part that is wrong is found out by its digest and fetched again")
    raised(lwq.AlreadyExists, "OUTPUT_EXISTS", lambda: client.download(job.name, DIR / "again"))


def use_errors(client):
    e = raised(lwq.FailedPrecondition, "BUDGET_INFEASIBLE", lambda: client.quantize("models/sample", "0.5bpw", **OPTIONS))
    ok(client.plan("models/sample", e.facts["smallest_budget"], **OPTIONS).smallest_bytes == int(e.facts["smallest_bytes"]),
       f"with the budget that would do: {e.facts}")
    raised(lwq.NotFound, "NOT_FOUND", lambda: client.job("no-such-job"))
    raised(lwq.InvalidArgument, "BUDGET_INVALID", lambda: client.quantize("models/sample", "3,25bpw"))
    raised(lwq.InvalidArgument, "METHOD_UNKNOWN", lambda: client.quantize("models/sample", "4bpw", method="magic"))
    raised(lwq.NotFound, "FILE_NOT_FOUND", lambda: client.add_dataset(DIR / "nowhere.txt"))
    bad = DIR / "bad-model"
    bad.mkdir()
    (bad / "config.json").write_text('{"architectures": ["Strange"], "model_type": "strange"}')
    rejected = raised(lwq.ModelRejected, "ARCH_UNSUPPORTED", lambda: client.add_model(bad))
    ok(rejected.failure.blame != 0, "a model that cannot be used says whose fault it is")
    try:
        client.quantize("models/sample", "4bpw", no_such_option=1)
        ok(False, "an unknown option is refused")
    except TypeError as e:
        ok("no_such_option" in str(e), "an unknown option is refused by name")
    with lwq.Client("127.0.0.1:1", retry_seconds=1) as away:
        raised(lwq.Unavailable, "UNAVAILABLE", lambda: away.jobs())


def use_deletion(client, job):
    client.delete_artifact(job.artifact)
    raised(lwq.NotFound, "NOT_FOUND", lambda: client.artifact(job.artifact))
    client.delete_job(job.name)
    raised(lwq.NotFound, "NOT_FOUND", lambda: client.job(job.name))


def use_tls():
    authority, key, certificate = ((CERTIFICATES / name).read_bytes() for name in ("ca.crt", "user.key", "user.crt"))
    with lwq.Client(SECURED, credentials=grpc.ssl_channel_credentials(authority, key, certificate)) as client:
        ok(client.server_info().version == "0.1.0", "with a certificate, over TLS")
    files = dict(tls_ca=CERTIFICATES / "ca.crt", tls_cert=CERTIFICATES / "user.crt", tls_key=CERTIFICATES / "user.key")
    with lwq.Client(SECURED, **files) as client:
        ok(client.server_info().version == "0.1.0", "by the names of files")
    port = SECURED.rpartition(":")[2]
    with lwq.Client(f"localhost:{port},127.0.0.1:{port}", retry_seconds=5, **files) as client:
        ok(client.server_info().version == "0.1.0", "of several addresses, whose certificates name the first")
    for name, path in files.items():
        os.environ[f"LWQ_{name.upper()}"] = str(path)
    with lwq.Client(SECURED) as client:
        ok(client.server_info().version == "0.1.0", "by lwqctl's variables")
    for name in files:
        del os.environ[f"LWQ_{name.upper()}"]
    worker = dict(files, tls_cert=CERTIFICATES / "worker.crt", tls_key=CERTIFICATES / "worker.key")
    with lwq.Client(SECURED, **worker) as client:
        raised(lwq.PermissionDenied, "ROLE_REQUIRED", client.jobs)
    with lwq.Client(SECURED, credentials=grpc.ssl_channel_credentials(authority), retry_seconds=1) as stranger:
        raised(lwq.Unavailable, "UNAVAILABLE", stranger.server_info)
    for server, given, words in (
            (SECURED, {}, "it speaks TLS: give tls_ca"),
            (SECURED, dict(tls_ca=CERTIFICATES / "ca.crt"), "asks for a certificate: give tls_cert and tls_key"),
            (SECURED, dict(files, tls_ca=CERTIFICATES / "user.crt"), f"not the one of tls_ca {CERTIFICATES / 'user.crt'}"),
            (SECURED, dict(files, tls_key=CERTIFICATES / "worker.key"), "cannot be used together"),
            (f"127.1:{port}", files, "for another name"),
            (BY_TOKEN, {}, "it speaks TLS")):
        with lwq.Client(server, retry_seconds=20, **given) as wrong:
            began = time.monotonic()
            ok(words in raised(lwq.InvalidArgument, "TLS_INVALID", wrong.server_info).message, words)
            ok(time.monotonic() - began < 10, f"at once: {words}")


def use_tokens():
    ca = CERTIFICATES / "ca.crt"
    with lwq.Client(BY_TOKEN, tls_ca=ca, token_file=ADMIN_TOKEN) as client:
        ok(client.server_info().version == "0.1.0", "with a token and no certificate")
    with lwq.Client(BY_TOKEN, tls_ca=ca) as client:
        raised(lwq.PermissionDenied, "TOKEN_MISSING", client.server_info)
    mine = DIR / "my.token"
    mine.write_text("lwq_admin_" + 43 * "A")
    os.environ["LWQ_TOKEN_FILE"] = str(mine)
    with lwq.Client(BY_TOKEN, tls_ca=ca) as client:
        raised(lwq.PermissionDenied, "TOKEN_INVALID", client.server_info)
        mine.write_text(ADMIN_TOKEN.read_text())
        ok(client.server_info().version == "0.1.0", "a token is read again when its file changes")
    raised(lwq.InvalidArgument, "TOKEN_IN_CLEAR", lambda: lwq.Client(BY_TOKEN))
    mine.write_text("rubbish")
    raised(lwq.InvalidArgument, "TOKEN_FILE_INVALID", lambda: lwq.Client(BY_TOKEN, tls_ca=ca))
    del os.environ["LWQ_TOKEN_FILE"]


async def use_asyncio():
    async with lwq.aio.Client(SERVER) as client:
        both = await asyncio.gather(*(client.quantize("models/sample", budget, **OPTIONS) for budget in ("4bpw", "5bpw")))
        ok(all(j.state == lwq.types.Job.SUCCEEDED for j in both), "two jobs at once, by asyncio")
        ok(both[0].plan.bits_per_weight < both[1].plan.bits_per_weight, "each to its own budget")


def main():
    DIR.mkdir()
    ok("proto" not in sys.modules, "no package of another's name is imported")
    use_budgets()
    with lwq.Client(SERVER) as client:
        job = use_quantize(client)
        use_downloads(client, job)
        use_errors(client)
        use_deletion(client, job)
        use_tls()
        use_tokens()
        asyncio.run(use_asyncio())
        slow = client.quantize("models/sample", "4.5bpw", wait=False, no_cache=True, **OPTIONS)
        states = [event.state.to for event in client.watch(client.quantize("models/sample", "4.5bpw", wait=False, **OPTIONS).name)
                  if event.HasField("state")]
        ok(not states or states[-1] == lwq.types.Job.SUCCEEDED, "watch() ends with the job")
        (DIR / "kill-the-server").touch()
        ok(client.wait(slow.name).state == lwq.types.Job.SUCCEEDED, "a wait goes on over a server that is killed and started again")


main()
