"""The documentation: the pages made from the source hold all there is, the site builds without a broken link, and each block of commands
runs or says why it does not: "<!-- tested -->" before it ("tested: exit 9": how it ends; "tested: needs kubectl"), or
"<!-- not run: WHY -->"."""
import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys

from processes import BIN, ROOT, SAMPLE, TMP, check, finish, free_port, lwq

sys.path.insert(0, str(ROOT / "scripts"))
import docs_pages  # noqa: E402
import man_pages  # noqa: E402

BLOCK = re.compile(r"(?:<!-- (tested|not run)(?:: ([^\n]*))? -->\n)?^```(?:sh|bash)\n(.*?)^```", re.S | re.M)
# A recipe that takes seconds, for commands of a page that leave it open.
QUICK = {"LWQ_METHOD": "rtn", "LWQ_SCORER": "weight-error", "LWQ_ALLOCATOR": "knapsack", "LWQ_CALIBRATION_TOKENS": "512", "LWQ_NO_EVAL": "true"}


def lines_of(path, macro):
    return len(re.findall(rf"^{macro}\(", (ROOT / path).read_text(), re.M))


def check_generated():
    check(len(docs_pages.failures()) == lines_of("base/failure.def", "LWQ_REASON"), f"{len(docs_pages.failures())} reasons, as in failure.def")
    page = docs_pages.troubleshooting_page()
    missing = [reason for reason, *_ in docs_pages.failures() if f"| `{reason}` |" not in page]
    check(not missing, f"each on the page {missing or ''}")
    made = sum(len(re.findall(r"Add(?:Counter|Gauge|Histogram)\(\s*\"", text)) for text in docs_pages.sources("base", "server", "worker"))
    found = docs_pages.metrics()
    check(len(found) == made and made > 30, f"{len(found)} metrics of {made} in the sources")
    check(all(help_ for *_, help_ in found) and ("lwq_tasks_ready", "gauge", ["kind"]) in [m[:3] for m in found], "with labels and help")
    for kind, folder, definition, macro in (("quantizers", "worker/engine/quant", r"QuantizerDef \w+ ?=", "LWQ_QUANTIZER"),
                                            ("scorers", "worker/engine/score", r"ScorerDef \w+ ?=", "LWQ_SCORER"),
                                            ("allocators", "worker/engine/plan", r"AllocatorDefs::\w+ ?=", "LWQ_ALLOCATOR")):
        names = docs_pages.registered(folder, definition)
        registered = lines_of(f"{folder}/{kind}.def", macro)
        check(len(names) == registered, f"{len(names)} {kind} of {registered}: {', '.join(name for name, _ in names)}")
    made = len(re.findall(r'\{\.name = "', (ROOT / "worker/engine/plan/profile.cc").read_text()))
    names = [name for name, _ in docs_pages.profiles()]
    check(len(names) == made and "vllm-lowbit" in names, f"{len(names)} profiles of {made}: {', '.join(names)}")


def check_versions():
    """One version wherever it stands: programs, package, images, manifests."""
    version = re.search(r"project\(lwq VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
    places = {"client/python/pyproject.toml": r'^version = "(.+)"', "Dockerfile": r"^ARG VERSION=(.+)$"}
    for path in (ROOT / "deploy/kubernetes").rglob("kustomization.yaml"):
        places[str(path.relative_to(ROOT))] = r"newTag: ([\d.]+)"
    found = {place: set(re.findall(pattern, (ROOT / place).read_text(), re.M)) for place, pattern in places.items()}
    wrong = {place: versions for place, versions in found.items() if versions and versions != {version}}
    check(sum(map(bool, found.values())) >= 5 and not wrong, f"version {version} in {len(found)} files {wrong or ''}")


def keys_of(value, path=""):
    """Of JSON: "files.name", whatever the index. Maps' own keys are left out."""
    if isinstance(value, list):
        return set().union(*(keys_of(v, path) for v in value))
    if not isinstance(value, dict):
        return set()
    return set().union(*({f"{path}{key}"} | keys_of(v, f"{path}{key}.") for key, v in value.items()))


def check_api():
    """What protoc knows of the protos stands on the generated pages; and what a record of a real artifact holds (see main)."""
    page, report = docs_pages.api_page(), docs_pages.report_page()
    text = {path.name: path.read_text() for path in (ROOT / "proto/lwq/v1").glob("*.proto")}
    calls = re.findall(r"rpc (\w+)\(", "".join(text.values()))
    missing = [call for call in calls if f"| `{call}` |" not in page]
    check(len(calls) > 25 and not missing, f"{len(calls)} calls are on the page API {missing or ''}")
    for name in ("Job", "QuantizeSpec", "PlanSummary", "LayerReport", "KlResult", "Artifact", "Job.State", "WorkForecast"):
        check(f"\n## {name}\n" in report, f"{name} is on the page of reports")
    fields = re.findall(r"^  (?:repeated |optional )?[\w.<>, ]+ (\w+) = \d+;", text["job.proto"].split("message QuantizeSpec {")[1].split("\n}")[0], re.M)
    part = report.split("\n## QuantizeSpec\n")[1].split("\n## ")[0]
    missing = [field for field in fields if f"| `{field}` |" not in part]
    check(len(fields) > 20 and not missing, f"each of {len(fields)} fields of QuantizeSpec {missing or ''}")
    check("| `max_shard_bytes` | int64 | 0: one file |" in part, "with its comment")


def check_records(folder):
    """Of the artifact that the page first-job made."""
    manifest = json.loads((folder / "lwq-manifest.json").read_text())
    page = (ROOT / "docs/formats/manifest.md").read_text()
    source = {f"provenance.source.files.{key}" for key in ("name", "bytes", "sha256")}
    source |= {f"provenance.recipe.options.{option}" for option in manifest["provenance"]["recipe"]["options"]}
    missing = sorted(key for key in keys_of(manifest) - source if f"| `{key}` |" not in page)
    check(not missing, f"each key of a manifest is documented {missing or ''}")
    told = re.findall(r"^\| `([\w.]+)` \|", page, re.M)
    gone = sorted(set(told) - keys_of(manifest))
    check(not gone, f"and each that is documented is there {gone or ''}")
    report = json.loads((folder / "lwq-report.json").read_text())
    names = {key.rsplit(".", 1)[-1] for key in keys_of(report) if not re.search(r"\blabels\.|options\.", key, re.I)}
    page = docs_pages.report_page()
    missing = sorted(name for name in names if f"| `{name}` |" not in page)
    check(len(names) > 50 and not missing, f"each of {len(names)} names in a report is documented {missing or ''}")


def check_site():
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", TMP / "site", "-f", ROOT / "mkdocs.yml"],
                          capture_output=True, text=True)
    if "No module named mkdocs" in done.stderr:
        print("not checked: this Python has no mkdocs, so the site is not built")
        return
    check(done.returncode == 0, f"mkdocs builds the site, every link leads somewhere {done.stderr[-1500:]}")
    check("LwqQueueStuck" in (TMP / "site/alerts/index.html").read_text(), "alerts are in it")


def pages():
    readmes = ("README.md", "CONTRIBUTING.md", "client/python/README.md", "examples/clients/README.md")
    return [*(ROOT / name for name in readmes), *sorted((ROOT / "docs").rglob("*.md"))]


def check_blocks():
    """Results are records of what was run once, with its commands; of all others each block is accounted for."""
    unmarked, run_, left = [], 0, {}
    for page in pages():
        if "results" in page.parts:
            continue
        for marker, why, block in BLOCK.findall(page.read_text()):
            run_ += marker == "tested"
            if marker == "not run" and why:
                left.setdefault(why, []).append(page.name)
            elif marker != "tested":
                unmarked.append((page.name, block.split("\n", 1)[0]))
    check(run_ > 20 and not unmarked, f"{run_} blocks of commands run, {sum(map(len, left.values()))} say why they do not {unmarked or ''}")


def command_lines():
    """(page, program, words) of each command line of lwq's that a page shows, in a block or in a sentence."""
    for page in pages():
        text = page.read_text()
        blocks = "".join(re.findall(r"```(?:sh|bash)?\n(.*?)```", text, re.S)).replace("\\\n", " ").splitlines()
        for line in [*blocks, *re.findall(r"`((?:\S*/)?lwq(?:ctl|-server|-worker) [^`]*)`", text)]:
            for program, rest in re.findall(r"(lwqctl|lwq-server|lwq-worker) ([^|)&;#]*)", line.replace("$(", ";")):
                yield page.relative_to(ROOT), program, re.findall(r"[^\s\"`']+", rest)


def wrong_words(program, words):
    """Commands and flags among the words that the program's help does not name."""
    if program != "lwqctl":
        known = help_of(program, "store", "--help") if "store" in words else help_of(program, "--help")
        return [word for word in words if word.startswith("--") and not re.search(rf"{re.escape(word.split('=')[0])}\b(?!-)", known)]
    commands = re.findall(r"^  (\w+) {2,}", help_of("lwqctl", "--help"), re.M)
    command = next((word for word in words if word in [*commands, "help"]), None)
    if command is None:
        return [] if {"--help"} & set(words) else words
    known = help_of("lwqctl", "help", command) if command != "help" else ""
    return [word for word in words if word.startswith("--") and word != "--help" and not re.search(rf"{re.escape(word.split('=')[0])}\b(?!-)", known)]


@functools.lru_cache
def help_of(*command):
    return subprocess.run([lwq(command[0]), *command[1:]], capture_output=True, text=True).stdout


def check_command_lines():
    found = list(command_lines())
    wrong = [(str(page), program, wrong_words(program, words)) for page, program, words in found if wrong_words(program, words)]
    check(len(found) > 40 and not wrong, f"{len(found)} command lines in the pages have commands and flags that there are {wrong or ''}")
    for program, words in (("lwqctl", ["jobs", "--no-such"]), ("lwqctl", ["jump"]), ("lwq-server", ["--lis=x"]), ("lwqctl", ["submit", "--eval"])):
        check(wrong_words(program, words), f"a wrong one is found out: {program} {' '.join(words)}")


def checkout(folder):
    """A folder in which the commands of README.md find what they name: the programs, and a model of the user's."""
    (folder / "build/release").mkdir(parents=True)
    (folder / "build/release/bin").symlink_to(BIN)
    for name in ("examples", "deploy", "scripts", "CMakeLists.txt"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "home/models").mkdir(parents=True)
    (folder / "home/models/my-llama").symlink_to(SAMPLE)
    return folder


def check_man_pages():
    """Each command has its page with each of its flags, and troff has nothing to say against any."""
    made = man_pages.pages(BIN)
    commands = re.findall(r"^  (\w+) {2,}", help_of("lwqctl", "--help"), re.M)
    check({f"lwqctl-{c}.1" for c in commands} | {"lwqctl.1", "lwq-server.8", "lwq-worker.8"} == set(made), f"{len(made)} man pages, one for each command")
    missing = []
    for name, text in made.items():
        program, _, command = name.rsplit(".", 1)[0].partition("-") if name.startswith("lwqctl") else (name.rsplit(".", 1)[0], "", "")
        help_ = help_of(program, "help", command) if command else help_of(program, "--help") if program != "lwqctl" else ""
        shown = text.replace("\\-", "-")
        missing += [(name, flag) for flag in re.findall(r"^  (?:-\w,)?(--[a-z-]+)", help_, re.M) if flag not in shown]
    check(not missing, f"with each flag {missing or ''}")
    if shutil.which("groff"):
        said = {name: subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-rLL=100n"], input=text, capture_output=True, text=True).stderr for name, text in made.items()}
        check(not any(said.values()), f"groff warns of none {[name for name, words in said.items() if words] or ''}")


def check_commands(path, environment=None):
    """Runs the page's blocks as one shell would, each of them to its exit code."""
    page = path.stem
    out = TMP / page
    out.mkdir()
    blocks = [(why, block) for marker, why, block in BLOCK.findall(path.read_text()) if marker == "tested"]
    script = "set -eu\n"
    for how, block in blocks:
        code, program = re.search(r"exit (\d+)", how), re.search(r"needs (\w+)", how)
        if program and not shutil.which(program[1]):
            print(f"not checked: a block of {path.name} needs {program[1]}")
            continue
        script += f"(\nset -e\n{block})  && code=0 || code=$?; [ $code = {code[1]} ]\n" if code else block
    for port in set(re.findall(r"(?:127\.0\.0\.1|localhost):(\d{4,5})\b", script)):  # another's here, perhaps
        script = re.sub(rf"\b{port}\b", str(free_port()), script)
    folder = checkout(TMP / f"{page}-checkout")
    environment = {**os.environ, **(environment or {}), "PATH": f"{BIN}:{os.environ['PATH']}", "OUT": str(out), "HOME": str(folder / "home")}
    environment.pop("LWQ_SERVER", None)
    with open(out / "output", "w") as log:
        shell = subprocess.Popen(["bash", "-c", script], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            code = shell.wait(300)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGTERM)  # what the page starts in the background
    said = (out / "output").read_text()
    check(blocks and code == 0, f"{page}.md: {len(blocks)} blocks of commands {said[-1500:] if code else ''}")
    return said


def main():
    check_generated()
    check_versions()
    check_api()
    check_site()
    for program in ("lwqctl", "lwq-server", "lwq-worker"):
        lwq(program)
    check_command_lines()
    check_blocks()
    check_man_pages()
    said = {path.name: check_commands(path, QUICK if path.name == "README.md" else None) for path in pages()
            if any(marker == "tested" for marker, *_ in BLOCK.findall(path.read_text()))}
    check("below the smallest plan" in said["first-job.md"], "a budget that cannot be kept says so")
    check_records(TMP / "first-job/fast")
    check("SUCCEEDED" in said["service.md"], "a job by the service")
    check("about" in said["lwqctl.md"], "an estimate of the time")


main()
finish()
