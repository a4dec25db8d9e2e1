"""The images that deploy/images/build.sh made: what is in them, and a job on the sample by programs that run in their
roots. Skipped where none were built."""
import atexit
import json
import os
import subprocess

from processes import SAMPLE, TMP, check, finish, free_port, need, run, skip, start, wait_for

ENVIRONMENT = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
PROGRAMS = {"lwq-server": ["lwq-server"], "lwq-worker-cpu": ["lwq-worker"], "lwqctl": ["lwqctl"],
            "lwq": ["lwq-server", "lwq-worker", "lwqctl"]}
CUDA = {"lwq-worker-cuda": ["lwq-worker"]}
NOT_WANTED = ["usr/bin/gcc", "usr/bin/cc", "usr/bin/g++", "usr/bin/make", "usr/bin/python3", "usr/bin/curl", "usr/bin/git"]
QUICK = ("--budget 4.5bpw --method rtn --scorer lim --allocator two-level --calibration-tokens 512"
         " --eval-text /models/sample/held-out.txt --eval-tokens 512").split()


def container(image):
    name = run(["buildah", "from", "--pull-never", image], env=ENVIRONMENT).strip()
    atexit.register(subprocess.run, ["buildah", "rm", name], env=ENVIRONMENT, capture_output=True)
    return name


def in_image(name, command, *mounts):
    volumes = [word for mount in mounts for word in ("-v", mount)]
    return ["buildah", "run", "--user", "10001:10001", *volumes, name, "--", *command]


def check_content(image, name):
    config = json.loads(run(["buildah", "inspect", "--type", "image", image]))["Docker"]["config"]
    check(config["User"] == "10001:10001", f"{image}: runs as {config['User']}")
    check(config["Labels"]["org.opencontainers.image.version"] == "0.1.0", f"{image}: labelled with its version")
    tagged = run(["buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", f"{image}:0.1.0"]).strip()
    newest = run(["buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", image]).strip()
    check(tagged == newest, f"{image}: has the tag that the manifests name")
    check(config["Labels"].get("org.opencontainers.image.revision"), f"{image}: and its revision")
    if image.startswith(("lwq-server", "lwq-worker")):
        check(config.get("Healthcheck", {}).get("Test") == ["CMD", "healthy", "9464"], f"{image}: has a health check")
    root = run(["buildah", "mount", name]).strip()
    found = [path for path in NOT_WANTED if os.path.lexists(f"{root}/{path}")]
    check(not found, f"{image}: no build tools {found or ''}")
    left = [d for d in ("var/lib/apt/lists", "var/cache/apt") if os.path.isdir(f"{root}/{d}") and os.listdir(f"{root}/{d}")]
    check(not left, f"{image}: no caches of the package manager {left or ''}")
    secrets = subprocess.run(["grep", "-rIlE", "--devices=skip", "-e", "-----BEGIN .*PRIVATE KEY-----$|lwq_[a-z0-9]+_[A-Za-z0-9_-]{43}", root],
                             capture_output=True, text=True).stdout.split()
    check(not secrets, f"{image}: no keys and no tokens {secrets or ''}")
    check(not os.path.exists(f"{root}/src"), f"{image}: no sources")
    for program in {**PROGRAMS, **CUDA}[image]:
        missing = [line for line in run(["chroot", root, "ldd", f"/usr/local/bin/{program}"]).splitlines() if "not found" in line]
        check(not missing, f"{image}: {program} finds its libraries {missing or ''}")


def check_cuda():
    """Made by name only. Without a driver its worker says so, which it can because it found CUDA's libraries."""
    image = "lwq-worker-cuda"
    if subprocess.run(["buildah", "inspect", "--type", "image", image], capture_output=True).returncode != 0:
        print(f"not checked: no image {image} here")
        return
    name = container(image)
    check_content(image, name)
    command = ["lwq-worker", "--server", "unix:/tmp/none", "--work-dir", "/tmp", "--device", "cuda:0"]
    done = subprocess.run(in_image(name, command), env=ENVIRONMENT, capture_output=True, text=True)
    said = done.stdout + done.stderr
    check(done.returncode == 75 and "DEVICE_MISSING" in said and "build has no CUDA" not in said, f"{image}: misses nothing but a driver: {said.strip()[-200:]}")


def main():
    need("buildah")
    if subprocess.run(["buildah", "inspect", "--type", "image", "lwq-server"], capture_output=True).returncode != 0:
        skip("no images here (deploy/images/build.sh makes them)")
    names = {image: container(image) for image in PROGRAMS}
    for image, name in names.items():
        check_content(image, name)
    check_cuda()

    run(in_image(names["lwq-server"], ["bash", "-ec", "make_credentials /tmp/ca 365 server >/dev/null; test -s /tmp/ca/admin.token; test -w /tls/user"]),
        env=ENVIRONMENT)
    check(True, "the server's image makes the credentials of docker-compose.yml")

    for folder in ("run", "data", "work", "own"):
        (TMP / folder).mkdir()
        os.chown(TMP / folder, 10001, 10001)
    TMP.chmod(0o755)
    run_volume, models = f"{TMP}/run:/run/lwq:rw", f"{SAMPLE}:/models/sample:ro"
    port = free_port()
    start("server", in_image(names["lwq-server"], [
        "lwq-server", "--listen", "unix:/run/lwq/server.sock", "--data-dir", "/data", "--metrics-listen", f"127.0.0.1:{port}",
        "--model-root", "/models"], run_volume, models, f"{TMP}/data:/data:rw"), ENVIRONMENT)
    healthy = in_image(names["lwq-server"], ["healthy", str(port), "/readyz"])
    wait_for("the server's health", lambda: subprocess.run(healthy, env=ENVIRONMENT, capture_output=True).returncode == 0)
    start("worker", in_image(names["lwq-worker-cpu"], [
        "lwq-worker", "--server", "unix:/run/lwq/server.sock", "--work-dir", "/data", "--threads", "1"],
        run_volume, models, f"{TMP}/work:/data:rw"), ENVIRONMENT)

    def ctl(*words):
        return run(in_image(names["lwqctl"], ["lwqctl", *words, "--server", "unix:/run/lwq/server.sock", "--timeout", "200"],
                            run_volume, models, f"{TMP}/own:/own:rw"), env=ENVIRONMENT)

    ctl("model", "add", "/models/sample", "--id", "sample")
    job = ctl("submit", "sample", *QUICK).strip()
    ctl("watch", job)
    ctl("artifact", "get", f"jobs/{job}", "--out", "/own/artifact")
    check((TMP / "own/artifact/model.safetensors").stat().st_size > 1e6, "a job by server, worker and client of three images")
    run(in_image(names["lwq"], ["lwqctl", "quantize", "/models/sample", *QUICK, "--out", "/own/alone", "--data-dir", "/own/state"],
                 models, f"{TMP}/own:/own:rw"), env=ENVIRONMENT)
    check((TMP / "own/alone/model.safetensors").read_bytes() == (TMP / "own/artifact/model.safetensors").read_bytes(),
          "lwqctl quantize in the image with all gives the same bytes")


main()
finish()
