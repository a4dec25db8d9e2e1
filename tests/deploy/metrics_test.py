"""A real Prometheus scrapes a real lwq-server and lwq-worker that run two jobs on the sample model: each panel's query
gives data, each alert's expression is loaded and quiet, and promtool's tests of the alerts pass."""
import json
import math
import re
import shutil
import subprocess
import time
import urllib.parse

from processes import (QUICK_JOB, ROOT, SAMPLE, TMP, check, finish, free_port, get, lwqctl, need, run, start, start_server,
                       start_worker, wait_for)

LONGEST_QUERY_SECONDS = 1.0


def start_prometheus(program, server_port, worker_port):
    folder = TMP / "prometheus"
    shutil.copytree(ROOT / "deploy/prometheus", folder)
    settings = folder / "prometheus.yml"
    settings.write_text(settings.read_text().replace("_interval: 15s", "_interval: 1s"))
    targets = folder / "targets.yml"
    targets.write_text(targets.read_text().replace("9464", str(server_port)).replace("9465", str(worker_port)))
    port = free_port()
    start("prometheus", [program, f"--config.file={settings}", f"--storage.tsdb.path={folder}/data",
                         f"--web.listen-address=127.0.0.1:{port}"])
    wait_for("Prometheus", lambda: get(port, "/-/ready")[0] == 200)
    return port


def query(port, expression):
    status, body = get(port, "/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
    return json.loads(body)["data"]["result"] if status == 200 else body


def is_number(sample):
    return not math.isnan(float(sample["value"][1]))


def check_names(promtool, exposition):
    """By the rules of Prometheus; the one exception is the unit that the field speaks of everywhere."""
    done = subprocess.run([promtool, "check", "metrics"], input=exposition, capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if line and not line.startswith("lwq_job_bits_per_weight use base unit")]
    check(not said and exposition, f"promtool check metrics: {said or 'nothing'}")


def shown(port, expression):
    """(samples, seconds) of a panel's query. Rates need several scrapes; how fast it is says the best of some tries."""
    seconds = math.inf
    end = time.monotonic() + 60
    while True:
        began = time.monotonic()
        result = query(port, expression)
        seconds = min(seconds, time.monotonic() - began)
        samples = [s for s in result if is_number(s)] if isinstance(result, list) else []
        if (samples and seconds < LONGEST_QUERY_SECONDS) or time.monotonic() > end:
            return samples, seconds
        time.sleep(1)


def check_panels(port):
    for path in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text())
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                expression = target["expr"].replace("$__rate_interval", "1m")
                samples, seconds = shown(port, expression)
                labels = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                first = samples[0]["value"][1] if samples else query(port, expression)
                check(samples and seconds < LONGEST_QUERY_SECONDS and labels <= set(samples[0]["metric"]),
                      f"{path.stem}: {panel['title']}: {len(samples)} series, first {first}, {seconds * 1000:.0f} ms")


def check_alerts(port):
    groups = json.loads(get(port, "/api/v1/rules")[1])["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    check(len(rules) == (ROOT / "deploy/prometheus/alerts.yml").read_text().count("- alert:"), f"{len(rules)} alerts are loaded")
    for rule in rules:
        # One that waits for its time to be over ("pending") may be about a moment in which the machine was busy.
        check(rule["health"] == "ok" and rule["state"] != "firing", f"{rule['name']}: {rule['health']}, {rule['state']}")


def main():
    promtool, prometheus = need("promtool"), need("prometheus")
    run([promtool, "check", "config", ROOT / "deploy/prometheus/prometheus.yml"])
    run([promtool, "test", "rules", ROOT / "deploy/prometheus/alerts_test.yml"])
    server_port, worker_port = free_port(), free_port()
    _, address = start_server("server", None, server_port)
    port = start_prometheus(prometheus, server_port, worker_port)
    wait_for("a scrape of the server", lambda: query(port, "lwq_build_info"))
    start_worker(address, "worker", worker_port)
    wait_for("a worker that is ready", lambda: get(worker_port, "/readyz")[0] == 200)
    lwqctl(address, "model", "add", SAMPLE, "--id", "sample")
    for budget in ("4.5bpw", "4bpw"):  # the second finds results of the first
        job = lwqctl(address, "submit", "sample", "--budget", budget, *QUICK_JOB).strip()
        lwqctl(address, "watch", job)
        # A job looks for its own results again when it goes on after planning; those are no results of others.
        hits = sum(map(float, re.findall(r'^lwq_cache_lookups_total{.*result="hit".*} (\d+)$', get(server_port, "/metrics")[1], re.M)))
        check((hits > 0) == (budget == "4bpw"), f"the job of {budget} found {hits:.0f} results of others")
    wait_for("a scrape of the last job", lambda: [s for s in query(port, 'lwq_jobs_finished_total{state="succeeded"} == 2')])
    for exposition in (server_port, worker_port):
        check_names(promtool, get(exposition, "/metrics")[1])
    check_panels(port)
    check_alerts(port)


main()
finish()
