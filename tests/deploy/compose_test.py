"""docker-compose.yml: what it says is true of the binaries and of the files beside it, and the same processes, started from
it without containers, end a job that both Prometheus and the artifact show."""
import http.client
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse

import flags
from client_venv import python_with_client
from postgres import start_postgres
from processes import QUICK_JOB, ROOT, SAMPLE, TMP, check, finish, free_port, get, lwq, lwqctl, need, run, skip, start, wait_for

try:
    import yaml
except ImportError:
    skip("this Python has no PyYAML")

MAKE_CREDENTIALS = ROOT / "deploy/kubernetes/make_credentials.sh"
PROGRAMS = {"server": "lwq-server", "worker-1": "lwq-worker", "worker-2": "lwq-worker"}


def check_file(compose):
    services = compose["services"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    for name, service in services.items():
        check(":" in service["image"] or "build" in service, f"{name}: its image has a version or is built here")
        for other in service.get("depends_on", {}):
            condition = service["depends_on"][other]["condition"]
            has_check = "healthcheck" in services[other] or re.search(rf"FROM (common|worker) AS {services[other].get('build', {}).get('target')}\n", dockerfile)
            check(other in services and (condition != "service_healthy" or has_check), f"{name}: waits for {other}, {condition}")
        for volume in service.get("volumes", []):
            source = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", volume).split(":")[0]
            known = source in compose["volumes"] or source == "./models" or (ROOT / source).exists()
            check(known, f"{name}: {source} is there")
        if "build" in service:
            check(f" AS {service['build']['target']}\n" in dockerfile, f"{name}: the Dockerfile has the target")
            check(service["read_only"] and service["cap_drop"] == ["ALL"], f"{name}: root is read-only, no capabilities")
    for name, program in PROGRAMS.items():
        bad = flags.wrong(program, services[name]["command"], services[name].get("environment", {}))
        check(not bad, f"{name}: {program} knows its flags and variables {bad or ''}")
    for name in ("worker-1", "worker-2"):
        check(services[name].get("hostname") == name, f"{name}: so it is called in lists and dashboards too")
    check(flags.wrong("lwq-worker", ["--no-such=1", "--server"]) == ["--no-such=1", "--server"], "a wrong flag is found out")
    check_lasting(services)
    check_secrets(services)
    for network in ("records", "blobs"):
        inside = sorted(n for n, s in services.items() if network in s.get("networks", []))
        check(compose["networks"][network]["internal"] and set(inside) <= {"server", "postgres", "objects", "bucket"}
              and len(inside) < 4, f"network {network} holds {inside}")


def check_lasting(services):
    """What runs for months: it is back after a reboot, which "on-failure" is not, and its logs do not fill the disk."""
    awaited = {other for service in services.values() for other, how in service.get("depends_on", {}).items()
               if how["condition"] == "service_completed_successfully"}
    for name, service in services.items():
        lasting = name not in awaited and "profiles" not in service
        check(not lasting or service.get("restart") == "unless-stopped", f"{name}: is started again after a reboot")
        limits = service.get("logging", {}).get("options", {})
        check({"max-size", "max-file"} <= set(limits), f"{name}: its log has a limit")


def check_secrets(services):
    """Each holds its own key and nobody the authority's but the step that makes them; what leaves the networks is encrypted."""
    held = {name: {volume.split(":")[0] for volume in service.get("volumes", [])} for name, service in services.items()}
    check([name for name, volumes in held.items() if "authority" in volumes] == ["credentials"], "the authority's key lies with the step that makes it")
    for name, role in (("server", "server"), ("worker-1", "worker"), ("worker-2", "worker"), ("lwqctl", "user")):
        mine = {volume for volume in held[name] if volume.startswith("tls-")}
        check(mine == {f"tls-{role}"}, f"{name} holds what a {role} needs alone: {sorted(mine)}")
    brought_out = re.search(r"docker compose cp credentials:/tls/user/\. \./(\S+)", (ROOT / "docker-compose.yml").read_text())[1]
    for file in (".dockerignore", ".gitignore"):
        names = {line.strip("/") for line in (ROOT / file).read_text().splitlines()}
        check({brought_out, "models"} <= names, f"{file} keeps {brought_out} and models out")
    check("rm -f /tls/user/user.*" in services["credentials"]["entrypoint"][-1], "an older version's key of an admin goes")
    words = services["server"]["command"]
    for flag, who in (("--tls-client-ca=", "has a certificate"), ("--admin-token-file=", "has a token")):
        check(any(word.startswith(flag) for word in words), f"the server lets in who {who}")
    for name, service in services.items():
        for port in service.get("ports", []):
            check(port.startswith("127.0.0.1:"), f"{name}: port {port} is this machine's alone")
    check("outside" in services["server"]["networks"], "a published port needs a network that is not internal")


def check_grafana(grafana):
    provisioning = ROOT / "deploy/grafana/provisioning"
    source = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"][0]
    provider = yaml.safe_load((provisioning / "dashboards/lwq.yml").read_text())["providers"][0]
    mounts = [volume.split(":") for volume in grafana["volumes"]]
    check(["./deploy/grafana/dashboards", provider["options"]["path"], "ro"] in mounts, "Grafana finds the dashboards")
    for path in (ROOT / "deploy/grafana/dashboards").glob("*.json"):
        check({p["datasource"]["uid"] for p in json.loads(path.read_text())["panels"]} == {source["uid"]},
              f"{path.name} uses the data source that is provisioned")


def start_objects(bucket):
    """The port of an S3 server (moto's) with the bucket."""
    if importlib.util.find_spec("moto") is None:
        skip("this Python has no moto")
    port = free_port()
    start("objects", [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port])
    wait_for("the S3 server", lambda: get(port, "/moto-api/")[0] == 200)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("PUT", f"/{bucket}")
    check(connection.getresponse().status == 200, f"bucket {bucket} made")
    return port


def local(words, service, ports):
    """The words of a command with the places of this machine for those of the containers."""
    replaced = []
    for word in words:
        for there, here in ((r"@postgres/", f"@127.0.0.1:{ports['postgres']}/"), (r"objects:8333", f"127.0.0.1:{ports['objects']}"),
                            (r"0\.0\.0\.0:9464", f"127.0.0.1:{ports.get(service)}"), (r"=/data$", f"={TMP}/{service}"),
                            (r"0\.0\.0\.0:7421", f"127.0.0.1:{ports['api']}"), (r"^((--server=)?)server:7421$", rf"\1localhost:{ports['api']}"),
                            (r"/tls/", f"{TMP}/tls-"), (r"/authority\b", f"{TMP}/authority"), (r"make_credentials", f"{MAKE_CREDENTIALS}"),
                            (r"=/models$", f"={SAMPLE.parent}")):
            word = re.sub(there, here, word)
        replaced.append(word.replace("$$", "$"))
    return replaced


def run_processes(services):
    """In the order that the file asks for, each when those are healthy that it waits for."""
    ports = {name: free_port() for name in (*PROGRAMS, "api")}
    ports["postgres"] = start_postgres()
    ports["objects"] = start_objects("lwq")
    for volume in services["credentials"]["volumes"]:
        (TMP / volume.split(":")[0]).mkdir()
    for _ in range(2):  # as by a second `docker compose up`
        run(local(services["credentials"]["entrypoint"], "credentials", ports))
    for role, files in (("server", {"ca.crt", "server.crt", "server.key", "admin.token"}), ("worker", {"ca.crt", "worker.crt", "worker.key"}),
                        ("user", {"ca.crt", "admin.token"})):
        found = {path.name: path.stat().st_mode & 0o777 for path in (TMP / f"tls-{role}").iterdir()}
        check(set(found) == files and set(found.values()) == {0o600}, f"the first step gives a {role} {sorted(found)}, for its eyes alone")
    for name, program in PROGRAMS.items():
        service = services[name]
        threads = ["--threads=1"] if program == "lwq-worker" else []
        start(name, [lwq(program), *local(service["command"], name, ports), *threads],
              service.get("environment"))
        # What the health check of the image asks for, before the next one starts.
        wait_for(f"{name} to be healthy", lambda: get(ports[name], "/livez")[0] == 200)
    return ports


def made_up_token():
    path = TMP / "made-up.token"
    path.write_text(f"lwq_admin_{'a' * 43}\n")
    return str(path)


FETCH = """
import sys, lwq
with lwq.Client() as client:
    client.download(client.job(sys.argv[1]), sys.argv[2])
"""


def fetch_by_python(job):
    """The Python client finds address, authority and token where lwqctl does."""
    python = python_with_client()
    if python is None:
        print("not checked: pip reaches no package registry, so there is no Python client")
        return
    run([python, "-c", FETCH, f"jobs/{job}", TMP / "by-python"])
    mine, by_lwqctl = (TMP / "by-python/model.safetensors"), (TMP / "artifact/model.safetensors")
    check(mine.read_bytes() == by_lwqctl.read_bytes(), "the Python client fetched the artifact over TLS with the token")


def start_prometheus(service, ports):
    """From the files that the service mounts, scraping each second."""
    folder = TMP / "prometheus"
    folder.mkdir()
    for source, target, *_ in (volume.split(":") for volume in service["volumes"]):
        if source.startswith("./"):
            shutil.copy(ROOT / source, folder / target.rsplit("/", 1)[1])
    targets = (folder / "targets.yml").read_text()
    for name in PROGRAMS:
        targets = targets.replace(f"{name}:9464", f"127.0.0.1:{ports[name]}")
    (folder / "targets.yml").write_text(targets)
    settings = folder / "prometheus.yml"
    settings.write_text(settings.read_text().replace("_interval: 15s", "_interval: 1s"))
    port = free_port()
    start("prometheus", [need("prometheus"), f"--config.file={settings}", f"--storage.tsdb.path={folder}/data",
                         f"--web.listen-address=127.0.0.1:{port}"])
    return port


def value(port, query):
    status, body = get(port, "/api/v1/query?" + urllib.parse.urlencode({"query": query}))
    result = json.loads(body)["data"]["result"] if status == 200 else []
    return float(result[0]["value"][1]) if result else 0


def main():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = compose["services"]
    check_file(compose)
    check_grafana(services["grafana"])
    ports = run_processes(services)
    prometheus = start_prometheus(services["prometheus"], ports)
    names, values = zip(*services["lwqctl"]["environment"].items())
    os.environ.update(zip(names, local(values, "lwqctl", ports)))
    address = os.environ["LWQ_SERVER"]
    wait_for("the server to lead", lambda: get(ports["server"], "/readyz")[0] == 200)
    for what, reason, token in (("a token that was made up", "TOKEN_INVALID", made_up_token()), ("no token", "TOKEN_MISSING", "")):
        refused = subprocess.run([lwq("lwqctl"), "jobs", "--timeout", "20"], env={**os.environ, "LWQ_TOKEN_FILE": token}, capture_output=True, text=True)
        check(refused.returncode == 4 and reason in refused.stderr, f"{what} opens nothing: {refused.stderr.strip()[:100]}")
    stranger = {**os.environ, "LWQ_TOKEN_FILE": "", "LWQ_TLS_CERT": f"{TMP}/tls-worker/worker.crt", "LWQ_TLS_KEY": f"{TMP}/tls-worker/worker.key"}
    refused = subprocess.run([lwq("lwqctl"), "jobs", "--timeout", "20"], env=stranger, capture_output=True, text=True)
    check(refused.returncode == 4 and "ROLE_REQUIRED" in refused.stderr, f"a worker's certificate works with no jobs: {refused.stderr.strip()[:100]}")
    lwqctl(address, "model", "add", SAMPLE, "--id", "sample")
    job = lwqctl(address, "submit", "sample", "--budget", "4.5bpw", *QUICK_JOB).strip()
    lwqctl(address, "watch", job)
    lwqctl(address, "artifact", "get", f"jobs/{job}", "--out", TMP / "artifact")
    check((TMP / "artifact/model.safetensors").stat().st_size > 1e6, "the artifact came from the S3 store")
    fetch_by_python(job)
    wait_for("Prometheus to see the job", lambda: value(prometheus, 'sum(lwq_jobs_finished_total{state="succeeded"})') == 1)
    for what, query, expected in (
            ("Prometheus to scrape all three", 'count(up{job=~"lwq-server|lwq-worker"} == 1)', 3),
            ("both workers to have taken part", 'count(sum by (instance) (lwq_worker_tasks_total{outcome="done"}) > 0)', 2)):
        wait_for(what, lambda: value(prometheus, query) == expected)
        check(True, what)


main()
finish()
