"""Pages of the documentation that are made from the source when mkdocs builds the site (`hooks` in mkdocs.yml)."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import proto_docs  # noqa: E402

LITERALS = r'((?:"(?:[^"\\]|\\.)*"\s*)+)'


def joined(literals):
    """The text of adjacent C++ string literals."""
    return "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', literals)).replace('\\"', '"')


def sources(*folders):
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.cc")):
            yield path.read_text()


def cell(text):
    return text.replace("|", "\\|").replace("<", "&lt;")


def metrics():
    """[(name, kind, labels, help)], by name."""
    made = re.compile(r'Add(Counter|Gauge|Histogram)\(\s*"([a-z_]+)",\s*' + LITERALS + r",(.*?)(?:\)\s*;|\)\s*\)|\)\s*->|AllOf)", re.S)
    found = []
    for text in sources("base", "server", "worker"):
        for kind, name, help_, rest in made.findall(text):
            labels = re.search(r'\{((?:"[a-z_]+"(?:,\s*)?)*)\}', rest)
            found.append((name, kind.lower(), re.findall(r'"([a-z_]+)"', labels[1]) if labels else [], joined(help_)))
    return sorted(found)


def metrics_page():
    lines = ["# Metrics", "", "Servers and workers export these at `--metrics-listen`, path `/metrics`. Label sets are known at the start and begin at zero, so that "
             "rates and alerts exist before the first event. No label holds a job, a model or a file.", ""]
    for title, prefix in (("Workers", "lwq_worker_"), ("Server", "lwq_"), ("Both", "process_")):
        lines += [f"## {title}", "", "| metric | type | labels | |", "| --- | --- | --- | --- |"]
        for name, kind, labels, help_ in metrics():
            of_worker = name.startswith("lwq_worker_")
            if name.startswith(prefix) and (prefix == "lwq_worker_" or not of_worker):
                lines.append(f"| `{name}` | {kind} | {', '.join(labels)} | {cell(help_)} |")
        lines.append("")
    return "\n".join(lines)


BLAMES = {"kUser": "In the request", "kModel": "In the model's files", "kCapacity": "Of capacity", "kService": "In the service or a machine"}


def failures():
    """[(reason, code, blame, rule, advice)]."""
    line = re.compile(r"LWQ_REASON\(\s*k\w+,\s*([A-Z0-9_]+),\s*k(\w+),\s*(k\w+),\s*([\w()]+),\s*" + LITERALS + r"\)")
    return [(r, c, b, rule, joined(a)) for r, c, b, rule, a in line.findall((ROOT / "base/failure.def").read_text())]


def troubleshooting_page():
    lines = ["# Troubleshooting", "", "Each error has a reason: `lwqctl` prints it after `why:`, a failed job holds it, Python has it as `e.reason`. It is stable, so "
             "programs may branch on it. The message beside it says what was being done, on what, and what was found.", "",
             "`lwqctl show JOB` tells how a job stands and why it waits; `lwqctl tasks JOB` which of its tasks failed, and where.", ""]
    for blame, title in BLAMES.items():
        lines += [f"## {title}", "", "| reason | code | what to do | runs again by itself |", "| --- | --- | --- | --- |"]
        for reason, code, whose, rule, advice in failures():
            if whose == blame:
                lines.append(f"| `{reason}` | {code} | {cell(advice)} | {'no' if rule == 'kNoRetry' else 'yes'} |")
        lines.append("")
    return "\n".join(lines)


def registered(folder, definition):
    """[(name, help)] of the Defs of a registry, by name."""
    pattern = re.compile(definition + r'[^;]*?\.name = ("[a-z-]+"|k\w+),\s*\.help =\s*' + LITERALS, re.S)
    return sorted((named(name, folder), joined(help_)) for text in sources(folder) for name, help_ in pattern.findall(text))


def named(name, folder):
    """A literal, or the value of a constant in a header of the folder."""
    if name.startswith('"'):
        return name.strip('"')
    headers = "".join(path.read_text() for path in sorted((ROOT / folder).glob("*.h")))
    return re.search(rf'\b{name}(?:\[\])? = "([a-z-]+)"', headers)[1]


def profiles():
    text = (ROOT / "worker/engine/plan/profile.cc").read_text()
    return [(name, joined(help_)) for name, help_ in re.findall(r'\{\.name = "([a-z0-9.-]+)",\s*\.help =\s*' + LITERALS, text)]


def methods_page():
    lines = ["# Methods", "", "A job takes one of each; `lwqctl quantize --help` has the flags, and what is left out gets the default, which is the best that is known.", ""]
    for title, text, rows in (
            ("Quantizers", "`--method`: how a weight matrix becomes codes.", registered("worker/engine/quant", r"QuantizerDef \w+ ?=")),
            ("Scorers", "`--scorer`: which parts of the model matter, or what each loses at each width.", registered("worker/engine/score", r"ScorerDef \w+ ?=")),
            ("Allocators", "`--allocator`: who chooses the format of every part within the budget.", registered("worker/engine/plan", r"AllocatorDefs::\w+ ?=")),
            ("Profiles", "`--profile`: who shall load the result, and so what may be chosen.", profiles())):
        lines += [f"## {title}", "", text, "", "| name | |", "| --- | --- |", *(f"| `{name}` | {cell(help_)} |" for name, help_ in rows), ""]
    return "\n".join(lines)


def report_page():
    known = proto_docs.entries()
    lines = ["# lwq-report.json", "", "The whole record of the job that made an artifact, beside it: what was asked, what was measured, what became of each layer. `lwqctl` and "
             "the Python client write it when they bring the artifact; `lwqctl show JOB --json` prints the same job.", "",
             "| key | | |", "| --- | --- | --- |", "| `lwq_report` | number | 1: the version of this format |",
             "| `job` | [Job](#job) | as it was when it ended |", "| `artifact` | [Artifact](#artifact) | its files with their SHA-256 |", "",
             "The records are those of `proto/lwq/v1`, as Protobuf's JSON with the names of the fields as they are: integers of 64 bits (int64, uint64) are strings, enums their "
             "names, times RFC 3339, and a field that has its default (0, empty, false) is left out. Readers have to ignore fields that they do not know: there will be more. "
             "This page is made from the same files.", ""]
    for name in proto_docs.reachable(["Job", "Artifact"], known):
        lines += proto_docs.table(known[name], known, cell)
    return "\n".join(lines)


def api_page():
    known = proto_docs.entries()
    services = [e for e in known.values() if e.kind == "service"]
    lines = ["# API", "", "gRPC, package `lwq.v1`, from `proto/lwq/v1`; the server has reflection and `grpc.health.v1` where nobody is asked who they are. An error has a reason in `google.rpc.ErrorInfo` "
             "(domain `lwq.dev`), which [Troubleshooting](troubleshooting.md) lists, and wrong fields in `google.rpc.BadRequest`. A call that changes something takes a "
             "`request_id`: sent twice with the same one it is done once. `WorkerService` is for workers alone. `examples/clients` has programs in Go and TypeScript.", ""]
    for service in services:
        lines += proto_docs.table(service, known, cell)
    for name in proto_docs.reachable([e.name for e in services], known):
        if known[name].kind != "service":
            lines += proto_docs.table(known[name], known, cell)
    return "\n".join(lines)


PAGES = {"formats/report.md": report_page, "api.md": api_page, "metrics.md": metrics_page, "troubleshooting.md": troubleshooting_page, "methods.md": methods_page}


def on_files(files, config):
    from mkdocs.structure.files import File

    for name, make in PAGES.items():
        files.append(File.generated(config, name, content=make()))
    return files


if __name__ == "__main__":
    for name, make in PAGES.items():
        print(make())
