"""The processes of the overlay postgres-s3 with their own command lines, without a cluster: two servers on one PostgreSQL and
workers that find them by one name with two addresses, over TLS with certificates. The leader is killed, then drained, in the middle of
jobs; so are workers; everything is rolled out anew; PostgreSQL goes away. People come with a token, and a stranger gets nothing."""
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time

from postgres import start_postgres, start_postgres_again, stop_postgres
from processes import (QUICK_JOB, ROOT, SAMPLE, TMP, check, finish, free_port, get, lwq, need, run, skip, start,
                       wait_for)

try:
    import yaml
except ImportError:
    skip("this Python has no PyYAML")

OVERLAY = ROOT / "deploy/kubernetes/overlays/postgres-s3"


def arguments(file, kind):
    """The command line of the container in the manifest."""
    for resource in yaml.safe_load_all((OVERLAY / file).read_text()):
        if resource["kind"] == kind:
            return resource["spec"]["template"]["spec"]["containers"][0]["args"]


def local(words, places):
    return [next((f"{flag}={value}" for flag, value in places.items() if word.startswith(flag + "=")), word) for word in words]


def credentials():
    run([ROOT / "deploy/kubernetes/make_credentials.sh", TMP / "ca"])
    for role in ("server", "worker"):  # as the secrets are mounted
        folder = TMP / f"tls-{role}"
        folder.mkdir()
        for source, target in ((f"{role}.crt", "tls.crt"), (f"{role}.key", "tls.key"), ("ca.crt", "ca.crt")):
            (folder / target).write_bytes((TMP / "ca" / source).read_bytes())
    shutil.copy(TMP / "ca/admin.token", TMP / "token")


def in_cluster(command):
    """A command that finds under "lwq-server" what the headless service would tell: the addresses of both pods."""
    return ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', TMP / "hosts", *command]


class Replica:
    """A server; its pod's address is one of the loopback."""

    def __init__(self, number, port, postgres):
        self.name, self.address, self.metrics_port = f"server-{number}", f"127.0.0.{number + 2}", free_port()
        tls = TMP / "tls-server"
        self.words = local(arguments("server.yaml", "StatefulSet"), {
            "--listen": f"{self.address}:{port}", "--data-dir": TMP / self.name, "--blobs": TMP / "blobs",
            "--tls-cert": tls / "tls.crt", "--tls-key": tls / "tls.key", "--tls-client-ca": tls / "ca.crt",
            "--admin-token-file": TMP / "token",
            "--store": f"postgresql://lwq@127.0.0.1:{postgres}/lwq", "--metrics-listen": f"127.0.0.1:{self.metrics_port}",
            "--model-root": SAMPLE.parent})
        self.run()

    def run(self):
        self.process = start(self.name, [lwq("lwq-server"), *self.words])
        wait_for(f"{self.name} to live", lambda: get(self.metrics_port, "/livez")[0] == 200)

    def leads(self):
        return get(self.metrics_port, "/readyz")[0] == 200


def answers(address, port):
    """Whether a TLS client gets an answer of HTTP/2 there."""
    context = ssl.create_default_context(cafile=TMP / "ca/ca.crt")
    context.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection((address, port), timeout=10) as plain, \
             context.wrap_socket(plain, server_hostname="lwq-server") as s:
            s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))  # the preface, and settings
            return len(s.recv(9)) == 9
    except OSError:
        return False


def command(address, *words):
    return list(map(str, in_cluster([lwq("lwqctl"), *words, "--server", address, f"--tls-ca={TMP}/ca/ca.crt"])))


def ctl(address, *words):
    return run([*command(address, *words), "--timeout", "200", f"--token-file={TMP}/ca/admin.token"])


def refused_to(address, *credentials):
    """The error of somebody who asks for the list of jobs."""
    done = subprocess.run([*command(address, "jobs", "--timeout", "20"), *map(str, credentials)], capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def submit(address, tokens="512"):
    words = list(QUICK_JOB)
    words[words.index("--calibration-tokens") + 1] = tokens
    return ctl(address, "submit", "sample", "--budget", "4.5bpw", *words, "--no-cache").strip()


class Worker:
    """A worker with the command line of the manifest."""

    def __init__(self, name, address):
        self.name, self.metrics_port = name, free_port()
        self.words = local(arguments("worker.yaml", "Deployment"), {
            "--server": address, "--work-dir": TMP / name, "--worker-id": name,
            "--tls-ca": TMP / "tls-worker/ca.crt", "--tls-cert": TMP / "tls-worker/tls.crt", "--tls-key": TMP / "tls-worker/tls.key",
            "--metrics-listen": f"127.0.0.1:{self.metrics_port}"})

    def run(self):
        self.process = start(self.name, in_cluster([lwq("lwq-worker"), *self.words, "--threads=1"]))
        wait_for(f"{self.name} to be ready", lambda: get(self.metrics_port, "/readyz")[0] == 200)

    def end_at_work(self, number):
        """Its exit code, when it got the signal in the middle of a task."""
        wait_for(f"{self.name} to be at work", lambda: "\nlwq_worker_busy 1\n" in get(self.metrics_port, "/metrics")[1])
        self.process.send_signal(number)
        code = self.process.wait(60)
        self.process.returncode = 0  # as it should be, for wait_for
        return code


def expired_leases(leader):
    return int(re.search(r"^lwq_leases_expired_total (\d+)$", get(leader.metrics_port, "/metrics")[1], re.M)[1])


def end_workers(address, leader, worker, other):
    """A pod that is evicted, and one that is killed for memory, in the middle of a task that takes seconds."""
    for what, number in (("evicted", signal.SIGTERM), ("killed for memory", signal.SIGKILL)):
        before = expired_leases(leader)
        job = submit(address, tokens="8192")
        began = time.monotonic()
        code = worker.end_at_work(number)
        other.run()
        ctl(address, "watch", job)
        check(code == (0 if what == "evicted" else -number), f"worker {what}: it ended with {code}")
        expired = expired_leases(leader) - before
        check((expired == 0) == (what == "evicted"), f"worker {what}: {expired} leases ran out")
        check(True, f"worker {what}: the job ended well {time.monotonic() - began:.1f} s after that began")
        worker, other = other, worker
    return worker, other  # the first one runs


def ended(process):
    process.send_signal(signal.SIGTERM)
    code = process.wait(60)
    process.returncode = 0  # as it should be, for wait_for
    return code


def roll_out(address, replicas, worker, other):
    """A new version of everything in the middle of a job: one server at a time, as a StatefulSet does it, and the workers one by one,
    a new one first."""
    job = submit(address, tokens="8192")
    began = time.monotonic()
    codes = []
    for replica in reversed(replicas):
        codes.append(ended(replica.process))
        replica.run()  # ready when it lives, so that the next one follows
    other.run()
    codes.append(ended(worker.process))
    ctl(address, "watch", job)
    check(codes == [0, 0, 0], f"a rollout: each process ends with 0: {codes}")
    check(True, f"a rollout: the job ended well {time.monotonic() - began:.1f} s after it began")


def lose_postgres(address, replicas, seconds=20):
    """Longer than a term lasts. Nobody can take over meanwhile, and nothing is acknowledged."""
    job = submit(address, tokens="8192")
    began = time.monotonic()
    stop_postgres()
    refused = subprocess.run([*command(address, "submit", "sample", "--budget", "4bpw", "--timeout", "5"), f"--token-file={TMP}/ca/admin.token"],
                             capture_output=True, text=True)
    check(refused.returncode in (5, 6), f"PostgreSQL is away: a new job is not taken: {refused.stderr.strip()[:160]}")
    time.sleep(max(0, began + seconds - time.monotonic()))
    check(all(r.process.poll() is None for r in replicas), "PostgreSQL is away: no server ends")
    start_postgres_again()
    back = time.monotonic()
    wait_for("somebody to lead", lambda: any(r.leads() for r in replicas))
    ctl(address, "watch", job)
    check(True, f"PostgreSQL was away for {seconds} s: the job ended well {time.monotonic() - back:.1f} s after it was back")


def main():
    need("openssl")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        skip("no right to a mount namespace of its own")
    credentials()
    postgres, port = start_postgres(), free_port()
    replicas = [Replica(number, port, postgres) for number in (0, 1)]
    (TMP / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{r.address} lwq-server\n" for r in replicas))
    leader = wait_for("a leader", lambda: next((r for r in replicas if r.leads()), None))
    standby = next(r for r in replicas if r is not leader)
    check(answers(leader.address, port), "the one that leads answers")
    check(not answers(standby.address, port), "the one that stands by lets nobody in")
    check("\nprocess_start_time_seconds " in get(standby.metrics_port, "/metrics")[1], "and says when it was started, so that its restarts are counted")

    address = f"lwq-server:{port}"
    check("TOKEN_MISSING" in refused_to(address), "a stranger is not let in")
    worker_key = [f"--tls-cert={TMP}/ca/worker.crt", f"--tls-key={TMP}/ca/worker.key"]
    check("ROLE_REQUIRED" in refused_to(address, *worker_key), "a worker's certificate works with no jobs")
    user_key = [f"--tls-cert={TMP}/ca/user.crt", f"--tls-key={TMP}/ca/user.key"]
    check(not refused_to(address, *user_key), "a user's certificate is as good as the token")
    worker, other = Worker("worker-1", address), Worker("worker-2", address)
    worker.run()
    ctl(address, "model", "add", SAMPLE, "--id", "sample")

    for what, number in (("killed", signal.SIGKILL), ("drained", signal.SIGTERM)):
        job = submit(address)
        began = time.monotonic()
        leader.process.send_signal(number)
        leader.process.wait(60)
        leader.process.returncode = 0  # as it should be, for wait_for
        wait_for("the other one to lead", standby.leads)
        seconds = time.monotonic() - began
        check(seconds < 25, f"leader {what}: the other one leads after {seconds:.1f} s")
        ctl(address, "watch", job)
        seconds = time.monotonic() - began
        # A lease whose answer was lost with the killed leader runs out first.
        check(seconds < (90 if what == "killed" else 30), f"leader {what}: the job ended well {seconds:.1f} s after that began")
        leader.run()
        leader, standby = standby, leader
    worker, other = end_workers(address, leader, worker, other)
    roll_out(address, replicas, worker, other)
    lose_postgres(address, replicas)


main()
finish()
