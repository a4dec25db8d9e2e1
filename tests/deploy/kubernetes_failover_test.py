"""The processes of the overlay postgres-s3 with their own command lines and tunnels, without a cluster: two servers on one
PostgreSQL, workers that reach them through HAProxy with mutual TLS. The leader is killed, then drained, in the middle
of jobs; so are workers. A stranger without a certificate is not let in."""
import re
import signal
import socket
import ssl
import time

from postgres import start_postgres
from processes import (QUICK_JOB, ROOT, SAMPLE, TMP, check, finish, free_port, get, lwq, lwqctl, need, run, skip, start,
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


def certificates():
    run([ROOT / "deploy/kubernetes/make_certificates.sh", TMP / "ca"])
    for role in ("server", "worker"):  # as the secrets are mounted
        folder = TMP / f"tls-{role}"
        folder.mkdir()
        for source, target in ((f"{role}.crt", "tls.pem"), (f"{role}.key", "tls.pem.key"), ("ca.crt", "ca.crt")):
            (folder / target).write_bytes((TMP / "ca" / source).read_bytes())


def start_tunnel(haproxy, name, role, changes):
    text = (OVERLAY / f"{role}-tunnel.cfg").read_text().replace("/etc/lwq-tls", f"{TMP}/tls-{role}")
    for there, here in changes:
        assert there in text, f"{role}-tunnel.cfg has no {there}"
        text = text.replace(there, here)
    (TMP / f"{name}.cfg").write_text(text)
    start(name, [haproxy, "-W", "-f", TMP / f"{name}.cfg"])


class Replica:
    """A server with its tunnel."""

    def __init__(self, number, haproxy, postgres):
        self.name = f"server-{number}"
        self.port, self.tunnel_port, self.metrics_port = free_port(), free_port(), free_port()
        self.words = local(arguments("server.yaml", "StatefulSet"), {
            "--listen": f"127.0.0.1:{self.port}", "--data-dir": TMP / self.name, "--blobs": TMP / "blobs",
            "--store": f"postgresql://lwq@127.0.0.1:{postgres}/lwq", "--metrics-listen": f"127.0.0.1:{self.metrics_port}",
            "--model-root": SAMPLE.parent})
        start_tunnel(haproxy, f"tunnel-{number}", "server", [(":7443 ", f"127.0.0.1:{self.tunnel_port} "), ("127.0.0.1:7421", f"127.0.0.1:{self.port}")])
        wait_for("the tunnel", lambda: listens(self.tunnel_port))
        self.run()

    def run(self):
        self.process = start(self.name, [lwq("lwq-server"), *self.words])
        wait_for(f"{self.name} to live", lambda: get(self.metrics_port, "/livez")[0] == 200)

    def leads(self):
        return get(self.metrics_port, "/readyz")[0] == 200


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def let_in(port, certificate):
    """Whether a TLS client gets an answer through the tunnel at `port`."""
    context = ssl.create_default_context(cafile=TMP / "ca/ca.crt")
    if certificate:
        context.load_cert_chain(TMP / "tls-worker/tls.pem", TMP / "tls-worker/tls.pem.key")
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain, context.wrap_socket(plain, server_hostname="lwq-server") as s:
            s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))  # HTTP/2's preface and settings
            return len(s.recv(9)) == 9
    except OSError:
        return False


def submit(address, tokens="512"):
    words = list(QUICK_JOB)
    words[words.index("--calibration-tokens") + 1] = tokens
    return lwqctl(address, "submit", "sample", "--budget", "4.5bpw", *words, "--no-cache").strip()


class Worker:
    """A worker with the command line of the manifest, behind the tunnel at `address`."""

    def __init__(self, name, address):
        self.name, self.metrics_port = name, free_port()
        self.words = local(arguments("worker.yaml", "Deployment"), {
            "--server": address, "--work-dir": TMP / name, "--worker-id": name, "--metrics-listen": f"127.0.0.1:{self.metrics_port}"})

    def run(self):
        self.process = start(self.name, [lwq("lwq-worker"), *self.words, "--threads=1"])
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
        lwqctl(address, "watch", job)
        check(code == (0 if what == "evicted" else -number), f"worker {what}: it ended with {code}")
        expired = expired_leases(leader) - before
        check((expired == 0) == (what == "evicted"), f"worker {what}: {expired} leases ran out")
        check(True, f"worker {what}: the job ended well {time.monotonic() - began:.1f} s after that began")
        worker, other = other, worker


def main():
    haproxy = need("haproxy")
    need("openssl")
    certificates()
    postgres = start_postgres()
    replicas = [Replica(number, haproxy, postgres) for number in (0, 1)]
    leader = wait_for("a leader", lambda: next((r for r in replicas if r.leads()), None))
    standby = next(r for r in replicas if r is not leader)
    wait_for("who has a certificate to be let in", lambda: let_in(leader.tunnel_port, certificate=True), 20)
    check(not let_in(leader.tunnel_port, certificate=False), "a stranger without a certificate is not let in")
    check(not let_in(standby.tunnel_port, certificate=True), "nobody is let in to the one that stands by")

    port = free_port()
    start_tunnel(haproxy, "tunnel-worker", "worker", [
        ("127.0.0.1:7421", f"127.0.0.1:{port}"), (" resolvers cluster init-addr none", ""),
        *((f"lwq-server-{n}.lwq-server.lwq.svc.cluster.local:7443", f"127.0.0.1:{replicas[n].tunnel_port}") for n in (0, 1))])
    address = f"127.0.0.1:{port}"
    worker, other = Worker("worker-1", address), Worker("worker-2", address)
    worker.run()
    lwqctl(address, "model", "add", SAMPLE, "--id", "sample")

    for what, number in (("killed", signal.SIGKILL), ("drained", signal.SIGTERM)):
        job = submit(address)
        began = time.monotonic()
        leader.process.send_signal(number)
        leader.process.wait(60)
        leader.process.returncode = 0  # as it should be, for wait_for
        wait_for("the other one to lead", standby.leads)
        seconds = time.monotonic() - began
        check(seconds < 25, f"leader {what}: the other one leads after {seconds:.1f} s")
        lwqctl(address, "watch", job)
        check(True, f"leader {what}: the job ended well {time.monotonic() - began:.1f} s after that began")
        leader.run()
        leader, standby = standby, leader
    end_workers(address, leader, worker, other)


main()
finish()
