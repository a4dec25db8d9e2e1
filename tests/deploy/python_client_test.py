"""The Python client as its users get it: a wheel, built and installed in a fresh venv, used against a real server and worker
(python_client_use.py), which is killed and started again in the middle; and against one that misbehaves (python_client_faults.py)."""
import hashlib
import re
import shutil
import signal
import subprocess
import sys
import threading

from processes import QUICK_JOB, ROOT, SAMPLE, TMP, check, finish, lwq, lwqctl, need, run, skip, start_server, start_worker, wait_for


def install():
    """The Python of a venv with the wheel and what pip takes with it; skips where no registry answers."""
    checkout = TMP / "checkout"  # so that nothing is built in the tree
    shutil.copytree(ROOT / "client/python", checkout / "client/python", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    shutil.copytree(ROOT / "proto", checkout / "proto")
    run([sys.executable, "-m", "venv", TMP / "venv"])
    python = TMP / "venv/bin/python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = subprocess.run([*map(str, pip), "wheel", "--no-deps", "-w", TMP / "wheels", checkout / "client/python"],
                           capture_output=True, text=True)
    if wheel.returncode != 0 and re.search("No matching distribution|Connection|Temporary failure", wheel.stderr):
        skip("pip reaches no package registry")
    check(wheel.returncode == 0, f"the wheel is built {wheel.stderr[-1500:]}")
    run([*pip, "install", *(TMP / "wheels").glob("lwq-*.whl")])
    return python


def main():
    lwq("lwq-server"), lwq("lwq-worker"), lwq("lwqctl"), need("openssl")
    python = install()
    print(run([python, ROOT / "tests/deploy/python_client_faults.py", TMP / "faults"], cwd=TMP), end="")
    server, address = start_server("server")
    start_worker(address)
    lwqctl(address, "model", "add", SAMPLE, "--id", "sample")
    job = lwqctl(address, "submit", "sample", "--budget", "4.5bpw", *QUICK_JOB).strip()
    lwqctl(address, "watch", job)
    lwqctl(address, "artifact", "get", f"jobs/{job}", "--out", TMP / "by-lwqctl")
    digest = hashlib.sha256((TMP / "by-lwqctl/model.safetensors").read_bytes()).hexdigest()

    options = run([python, "-c", "from lwq.spec import Options; print(*Options.__annotations__)"], cwd=TMP).split()
    flags = run([lwq("lwqctl"), "submit", "--help"])
    unknown = [option for option in options if f"--{option.replace('_', '-')} " not in flags]
    check(len(options) > 20 and not unknown, f"each of {len(options)} options is named as a flag of lwqctl {unknown or ''}")

    run([ROOT / "deploy/kubernetes/make_certificates.sh", TMP / "ca"])
    _, secured = start_server("secured", "localhost:0", None, f"--tls-cert={TMP}/ca/server.crt", f"--tls-key={TMP}/ca/server.key",
                              f"--tls-client-ca={TMP}/ca/ca.crt")

    # The script asks for the server to be killed by making a file, and goes on with a call meanwhile.
    use = subprocess.Popen([python, ROOT / "tests/deploy/python_client_use.py", address, SAMPLE, TMP / "client", digest,
                            secured, TMP / "ca"],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=TMP)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(use.stdout))
    reader.start()
    wait_for("the script to ask for a kill, or to end", lambda: (TMP / "client/kill-the-server").exists() or use.poll() is not None, 150)
    if use.poll() is None:
        server.send_signal(signal.SIGKILL)
        server.wait()
        server.returncode = 0  # as it should be, for wait_for
        (TMP / "server.ready").unlink()
        start_server("server")
    code = use.wait(150)
    reader.join()
    print("".join(lines), end="")
    check(code == 0, "the script ended well")


main()
finish()
