"""deploy/helm/lwq: made from the overlays of deploy/kubernetes and from nothing else. Rendered by Helm's own engine with the defaults it is
what `kubectl kustomize` makes, and each value that can be set arrives."""
import importlib.util
import re
import shlex
import sys

from processes import ROOT, check, finish, need, skip

try:
    import yaml
except ImportError:
    skip("this Python has no PyYAML")

need("kubectl")
sys.path.insert(0, str(ROOT / "deploy/helm"))
import make_chart  # noqa: E402

CHART = ROOT / "deploy/helm/lwq"


def check_made():
    made = make_chart.files()
    there = {str(path.relative_to(CHART)): path.read_text() for path in CHART.rglob("*") if path.is_file()}
    different = sorted(set(made) ^ set(there)) + [path for path in made if there.get(path) not in (None, made[path])]
    check(not different, f"deploy/helm/make_chart.py makes the {len(made)} files that are there {different or ''}")


def by_name(texts):
    resources = [r for text in texts for r in yaml.safe_load_all(text) if r]
    named = {f"{r['kind']} {r['metadata']['name']}": r for r in resources}
    if len(named) != len(resources):
        check(False, f"{len(resources)} resources of {len(named)} names")
    return named


def with_own_priorities(text, namespace):
    """What kustomize makes, with the names that the chart changes: those of PriorityClasses are the whole cluster's."""
    resources = [r for r in yaml.safe_load_all(text) if r]
    for resource in resources:
        if resource["kind"] == "PriorityClass":
            resource["metadata"]["name"] += f"-{namespace}"
        pod = make_chart.pod_of(resource)
        if "priorityClassName" in pod:
            pod["priorityClassName"] += f"-{namespace}"
    return yaml.safe_dump_all(resources)


def whole_clusters(resources):
    """The names that two releases may not share: of what is in no namespace."""
    return {name for name, resource in resources.items() if "namespace" not in resource["metadata"]}


def check_kept(resources):
    claims = [r for r in resources.values() if r["kind"] == "PersistentVolumeClaim"]
    kept = [r["metadata"].get("annotations", {}).get("helm.sh/resource-policy") for r in claims]
    check(kept and set(kept) == {"keep"}, f"  helm uninstall leaves {len(kept)} claim with the models")


def check_defaults(chart):
    for overlay in make_chart.OVERLAYS:
        wanted = by_name([with_own_priorities(make_chart.overlay_text(overlay), "lwq")])
        with_namespace = by_name(chart.render({"overlay": overlay, "createNamespace": True}, name="lwq", namespace="lwq").values())
        different = [name for name in wanted.keys() | with_namespace.keys() if wanted.get(name) != with_namespace.get(name)]
        check(not different, f"{overlay}: as kustomize makes it {different or ''}")
        without = by_name(chart.render({"overlay": overlay}, name="lwq", namespace="lwq").values())
        check(wanted.keys() - without.keys() == {"Namespace lwq"}, "  all but the namespace, where that is there")
        elsewhere = by_name(chart.render({"overlay": overlay, "createNamespace": True}, name="x", namespace="quantizing").values())
        named = {r["metadata"]["namespace"] for r in elsewhere.values() if "namespace" in r["metadata"]}
        check_kept(without)
        check(not whole_clusters(without) & whole_clusters(elsewhere), f"  beside another release: {sorted(whole_clusters(elsewhere))}")
        queries = [r["spec"]["triggers"][0]["metadata"]["query"] for r in elsewhere.values() if r["kind"] == "ScaledJob"]
        check(all(q == 'sum(lwq_tasks_ready{namespace="quantizing"})' for q in queries), f"  KEDA counts its own tasks: {queries}")
        check(named == {"quantizing"} and "Namespace quantizing" in elsewhere, "  in the namespace that was asked for")


def leaves(node, path=""):
    """{path: scalar}."""
    if not isinstance(node, (dict, list)):
        return {path: node}
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    return {k: v for key, value in pairs for k, v in leaves(value, f"{path}.{key}").items()}


def check_values(chart):
    """Each value changes what it is for, as text that YAML could take for something else, and nothing besides."""
    plain = {o: leaves(by_name(chart.render({"overlay": o}, name="lwq", namespace="lwq").values())) for o in make_chart.OVERLAYS}
    for name, *_ in make_chart.VALUES:
        head, _, tail = name.rpartition(".")
        default = chart.values[head][tail] if head else chart.values[tail]
        new = default + 1 if isinstance(default, (int, float)) else f"{default}: {{1}} # \"2\""
        seen = 0
        for overlay in make_chart.OVERLAYS:
            rendered = chart.render({"overlay": overlay, **({head: {tail: new}} if head else {tail: new})}, name="lwq", namespace="lwq")
            changed = leaves(by_name(rendered.values()))
            for path in changed.keys() | plain[overlay].keys():
                before, after = plain[overlay].get(path), changed.get(path)
                if before != after:
                    seen += 1
                    if str(after) != str(before).replace(str(default), str(new)):
                        check(False, f"{name} makes {path} {after!r}")
        check(seen > 0, f"{name} arrives in {seen} places")


def check_page(chart):
    """The command that docs/kubernetes.md shows sets values that there are, and they arrive."""
    command = re.search(r"helm install (.*?)\n[a-z`]", (ROOT / "docs/kubernetes.md").read_text().replace("\\\n", " "), re.S)[1]
    words = shlex.split(command)
    values, shown = {}, leaves(chart.values)
    for flag, word in zip(words, words[1:]):
        if flag.startswith("--set"):
            name, value = word.split("=", 1)
            check(f".{name}" in shown, f"docs/kubernetes.md sets {name}")
            head, _, tail = name.rpartition(".")
            (values.setdefault(head, {}) if head else values)[tail] = value
    text = "".join(chart.render(values, name=words[0], namespace="lwq").values())
    missing = [value for path, value in leaves(values).items() if path != ".overlay" and value not in text]
    check(len(leaves(values)) >= 4 and not missing, f"and {len(leaves(values))} values arrive {missing or ''}")


def main():
    check_made()
    if importlib.util.find_spec("helm_python") is None:
        print("not checked: this Python has no helm-python-sdk, so the chart is not rendered")
        return
    import helm_python
    with helm_python.Chart.load(CHART) as chart:
        check_defaults(chart)
        check_values(chart)
        check_page(chart)
        try:
            chart.render({"overlay": "postgres"}, name="lwq", namespace="lwq")
            check(False, "an overlay that there is not is refused")
        except helm_python.HelmError as error:
            check("there are embedded" in str(error), f"an overlay that there is not is refused: {error}")
    report = helm_python.lint(CHART, strict=True, namespace="lwq")
    check(not report["errors"], f"helm lint --strict {report['errors'] or ''}")


main()
finish()
