"""Every metric that deploy/ names is registered in the code, each dashboard is what its program writes, and each
alert says where to read on."""
import importlib.util
import re

from processes import ROOT, check, finish

REGISTRATION = re.compile(r'Add(Counter|Gauge|Histogram)\(\s*"([a-z_:]+)"')
MENTION = re.compile(r"\b(?:lwq|process)_[a-z_]+\b")


def registered():
    """name -> kind, of every metric in the sources."""
    found = {}
    for folder in ("base", "server", "worker"):
        for path in (ROOT / folder).rglob("*.cc"):
            for kind, name in REGISTRATION.findall(path.read_text()):
                found[name] = kind
    return found


def is_registered(mention, metrics):
    if mention in metrics:
        return metrics[mention] != "Histogram"
    base = re.sub(r"_(bucket|sum|count)$", "", mention)
    return metrics.get(base) == "Histogram"


def main():
    metrics = registered()
    check(len(metrics) > 30, f"{len(metrics)} metrics in the sources")
    # The rule catches what it is there for.
    check(not is_registered("lwq_made_up_total", metrics), "a name that is not registered is found out")
    check(not is_registered("lwq_job_seconds", metrics), "a histogram without its suffix is found out")
    files = [path for folder in ("prometheus", "grafana") for path in sorted((ROOT / "deploy" / folder).rglob("*"))
             if path.suffix in (".yml", ".json")]
    for path in files:
        unknown = sorted({m for m in MENTION.findall(path.read_text()) if not is_registered(m, metrics)})
        check(not unknown, f"{path.relative_to(ROOT)} names registered metrics only {unknown or ''}")

    spec = importlib.util.spec_from_file_location("make_dashboards", ROOT / "deploy/grafana/make_dashboards.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    folder = ROOT / "deploy/grafana/dashboards"
    check({p.stem for p in folder.iterdir()} == set(make.DASHBOARDS), "each dashboard has its file, and no other is there")
    for name in make.DASHBOARDS:
        check((folder / f"{name}.json").read_text() == make.text(name), f"{name}.json is what make_dashboards.py writes")

    panels = {p["title"]: p["fieldConfig"]["defaults"] for name in make.DASHBOARDS for p in make.dashboard(name)["panels"]}
    check(panels["Submitted, 24 h"].get("decimals") == 0 and "decimals" not in panels["Plans tried for a job"], "jobs are counted in whole numbers, means are not")

    alerts = (ROOT / "deploy/prometheus/alerts.yml").read_text()
    names = re.findall(r"- alert: (\w+)", alerts)
    tested = (ROOT / "deploy/prometheus/alerts_test.yml").read_text()
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/alerts.md").read_text(), re.M)
    check(headings == names, "docs/alerts.md has a section for each alert, in their order")
    for name in names:
        check(f"runbook: docs/alerts.md#{name.lower()}\n" in alerts, f"{name} names its runbook")
        check(f"alertname: {name}\n        exp_alerts" in tested, f"{name} is made to fire in alerts_test.yml")


main()
finish()
