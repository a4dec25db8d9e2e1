"""The Python client as its users get it: a source distribution, a wheel made from it and installed in a fresh venv, used against a
real server and worker (python_client_use.py), which is killed and started again in the middle; against one that misbehaves
(python_client_faults.py) and one that answers as it should (python_client_calls.py, python_client_plots.py); and by mypy."""
import hashlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
import zipfile

# A program of a user who has mypy check it strictly.
TYPED = """
import lwq
client = lwq.Client("localhost:7421")
job: lwq.types.Job = client.quantize("m", "3.25bpw", progress=lambda p: print(p.fraction), method="rtn", bits=(3, 4))
for event in client.watch(job.name):
    print(event.seq)
reveal_type(client.workers()[0].name)
client.quantize("m", "3.25bpw", bitz=3)
client.wait(3)
"""

# Another version may find more in the same package.
TYPE_CHECKERS = ["mypy==2.4.1", "types-grpcio==1.85.0.20261028", "types-protobuf==7.35.1.20260906"]

from client_venv import checkout
from processes import QUICK_JOB, ROOT, SAMPLE, TMP, check, finish, lwq, lwqctl, need, run, skip, start_server, start_worker, wait_for


def install():
    """The Python of a venv with the wheel and what pip takes with it; skips where no registry answers."""
    tree = checkout()
    run([sys.executable, "-m", "venv", TMP / "venv"])
    python = TMP / "venv/bin/python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheels = TMP / "wheels"
    if subprocess.run([*map(str, pip), "install", "setuptools"], capture_output=True).returncode != 0:
        skip("pip reaches no package registry")
    run([python, "setup.py", "-q", "sdist", "-d", wheels], cwd=tree / "client/python")
    source = next(wheels.glob("lwq-*.tar.gz"))
    shutil.rmtree(tree)  # the source distribution is enough
    stale = TMP / "unpacked"
    with tarfile.open(source) as archive:
        archive.extractall(stale, filter="data")
    tree = next(stale.iterdir())
    left = tree / "build/lib/lwq/_proto/v1/removed_pb2.py"  # of an earlier build of an older checkout
    left.parent.mkdir(parents=True)
    left.write_text("")
    wheel = subprocess.run([*map(str, pip), "wheel", "--no-deps", "-w", wheels, tree], capture_output=True, text=True)
    check(wheel.returncode == 0, f"the wheel is built from the source distribution {wheel.stderr[-1500:]}")
    check_content(next(wheels.glob("lwq-*.whl")))
    check_bounds(next(wheels.glob("lwq-*.whl")))
    run([*pip, "install", f"{next(wheels.glob('lwq-*.whl'))}[plots]", "rich"])
    return python


def check_content(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    modules = {f"lwq/{path.name}" for path in (ROOT / "client/python/lwq").iterdir() if path.suffix == ".py"} | {"lwq/py.typed"}
    stubs = {f"lwq/_proto/v1/{path.stem}_pb2{suffix}" for path in (ROOT / "proto/lwq/v1").glob("*.proto") for suffix in (".py", ".pyi", "_grpc.py")}
    found = {name for name in names if ".dist-info/" not in name and not name.endswith("__init__.py")}
    expected = (modules | stubs) - {"lwq/__init__.py"}
    check(found == expected, f"the wheel holds the package, its types and the stubs, {len(names)} files {sorted(found ^ expected)[:5] or ''}")


def check_bounds(wheel):
    """pip takes no library that the stubs refuse when they are imported."""
    archive = zipfile.ZipFile(wheel)
    needs = archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))).decode()
    grpc = re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", archive.read("lwq/_proto/v1/job_service_pb2_grpc.py").decode())[1]
    protobuf = re.search(r"PUBLIC,\s+(\d+),\s+(\d+),\s+(\d+)", archive.read("lwq/_proto/v1/job_pb2.py").decode()).groups()
    for library, least in (("grpcio", grpc), ("protobuf", ".".join(protobuf))):
        check(re.search(rf"^Requires-Dist: {library}\b.*>={re.escape(least)}(,|$)", needs, re.M), f"the wheel asks for {library} {least}, which its stubs need")


def documented():
    """The Python of docs/python.md and the package's README, as one program."""
    blocks = [block for page in ("docs/python.md", "client/python/README.md")
              for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)]
    names = "import asyncio\nimport lwq\nimport lwq.plots\njob: lwq.types.Job\njobs: list[lwq.types.Job]\n"
    return len(blocks), names + "".join(f"async def block_{i}() -> None:\n{textwrap.indent(_unshadowed(block), '    ')}\n" for i, block in enumerate(blocks))


def _unshadowed(block):
    """A block that uses what an earlier one made has it from the module; one that makes it has its own."""
    return block if re.search(r"^\s*(job|jobs) = ", block, re.M) else f"global job, jobs\n{block}"


def check_types(python):
    """By mypy, of the package and of a program that uses it."""
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *TYPE_CHECKERS]
    if subprocess.run(pip, capture_output=True).returncode != 0:
        print("not checked: pip cannot install mypy, so types are not checked")
        return
    settings = ROOT / "client/python/pyproject.toml"

    def mypy(*words):
        return subprocess.run([str(python), "-m", "mypy", "--config-file", settings, "--cache-dir", TMP / "mypy", *words],
                              capture_output=True, text=True, cwd=TMP).stdout

    said = mypy("-p", "lwq")
    check("Success: no issues found" in said, f"mypy --strict finds nothing in the package {said[-1500:] if 'Success' not in said else ''}")
    number, program = documented()
    (TMP / "documented.py").write_text(program)
    said = mypy("documented.py")
    check(number >= 5 and "Success" in said, f"nor in {number} blocks of the pages {said[-1500:] if 'Success' not in said else ''}")
    (TMP / "typed.py").write_text(TYPED)
    said = mypy("typed.py")
    lines = [line.split(":")[1] for line in said.splitlines() if ": error:" in line]
    check(lines == ["8", "9"] and re.search(r'Revealed type is "(builtins\.)?str"', said), f"and what is wrong in a program that uses it: {said}")


def main():
    lwq("lwq-server"), lwq("lwq-worker"), lwq("lwqctl"), need("openssl")
    python = install()
    for script in ("faults", "calls", "plots"):
        print(run([python, ROOT / f"tests/deploy/python_client_{script}.py", TMP / script], cwd=TMP), end="")
    check_types(python)
    server, address = start_server("server")
    start_worker(address)
    lwqctl(address, "model", "add", SAMPLE, "--id", "sample")
    job = lwqctl(address, "submit", "sample", "--budget", "4.5bpw", *QUICK_JOB).strip()
    lwqctl(address, "watch", job)
    lwqctl(address, "artifact", "get", f"jobs/{job}", "--out", TMP / "by-lwqctl")
    digest = hashlib.sha256((TMP / "by-lwqctl/model.safetensors").read_bytes()).hexdigest()

    run([python, "-c", f"import lwq; lwq.Client({address!r}).download({job!r}, {str(TMP / 'by-python')!r})"], cwd=TMP)
    cards = [(TMP / f"{who}/README.md").read_text() for who in ("by-lwqctl", "by-python")]
    check(cards[0] == cards[1] and "perplexity per token" in cards[0], f"lwqctl and Python write the same model card {cards}")

    options = run([python, "-c", "from lwq.spec import Options; print(*Options.__annotations__)"], cwd=TMP).split()
    flags = run([lwq("lwqctl"), "submit", "--help"])
    unknown = [option for option in options if f"--{option.replace('_', '-')} " not in flags]
    unknown = [flag for flag in unknown if flag not in ("engine", "method_options", "scorer_options", "allocator_options")]
    check(len(options) > 20 and not unknown, f"each of {len(options)} options is named as a flag of lwqctl {unknown or ''}")
    of_the_job = set(re.findall(r'^    \{"([a-z-]+)"', (ROOT / "client/spec_flags.cc").read_text(), re.M))
    given = {option.replace("_", "-") for option in options} | {"budget", "preset", "for"}  # an argument, which takes presets too; engine
    missing = sorted(flag for flag in of_the_job if flag not in given and f"{flag}s" not in given)
    check(len(of_the_job) > 20 and not missing, f"and each of its {len(of_the_job)} flags for jobs is an option {missing or ''}")

    run([ROOT / "deploy/kubernetes/make_credentials.sh", TMP / "ca"])
    _, secured = start_server("secured", "localhost:0", None, f"--tls-cert={TMP}/ca/server.crt", f"--tls-key={TMP}/ca/server.key",
                              f"--tls-client-ca={TMP}/ca/ca.crt")
    _, by_token = start_server("by-token", "localhost:0", None, f"--tls-cert={TMP}/ca/server.crt", f"--tls-key={TMP}/ca/server.key",
                               f"--admin-token-file={TMP}/admin.token")

    # The script asks for the server to be killed by making a file, and goes on with a call meanwhile.
    use = subprocess.Popen([python, ROOT / "tests/deploy/python_client_use.py", address, SAMPLE, TMP / "client", digest,
                            secured, TMP / "ca", by_token, TMP / "admin.token"],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=TMP)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(use.stdout))
    reader.start()
    wait_for("the script to ask for a kill, or to end", lambda: (TMP / "client/kill-the-server").exists() or use.poll() is not None, 240)
    if use.poll() is None:
        server.send_signal(signal.SIGKILL)
        server.wait()
        server.returncode = 0  # as it should be, for wait_for
        (TMP / "server.ready").unlink()
        start_server("server")
    code = use.wait(240)
    reader.join()
    print("".join(lines), end="")
    check(code == 0, "the script ended well")


main()
finish()
