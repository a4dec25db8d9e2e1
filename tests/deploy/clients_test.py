"""The example clients in other languages, from the same protos: compiled, and run against a real server over mutual TLS, as far
as the tools and libraries are here."""
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess

from processes import ROOT, SAMPLE, TMP, check, finish, lwq, run, skip, start_server, start_worker

EXAMPLES = ROOT / "examples/clients"
DEBIAN_GO = pathlib.Path("/usr/share/gocode/src/google.golang.org/grpc")  # libraries without a registry of modules
# Of @grpc/grpc-js and the others, so that the program's own types are checked where they are not installed.
NODE_STUBS = """
declare module "node:crypto"; declare module "node:fs"; declare module "node:path"; declare module "node:url";
declare module "@grpc/proto-loader";
declare module "@grpc/grpc-js" {
  export type ServiceError = Error & { code: number; details: string; metadata?: { get(name: string): unknown[] } };
  export type ChannelCredentials = unknown;
  export type ClientReadableStream<T> = AsyncIterable<T> & { cancel(): void };
  export const status: Record<string, number> & Record<number, string>;
  export const credentials: { createInsecure(): ChannelCredentials; createSsl(...files: unknown[]): ChannelCredentials };
  export function loadPackageDefinition(definition: unknown): unknown;
}
declare const process: { env: Record<string, string | undefined>; argv: string[]; exit(code: number): never };
declare const console: { log(...words: unknown[]): void; error(...words: unknown[]): void };
declare function setTimeout(call: (value?: any) => void, ms: number): number;
declare function clearTimeout(timer: number): void;
interface ImportMeta { url: string }
"""


def copied():
    """A tree without what earlier builds left, as the examples find the protos from where they lie."""
    shutil.copytree(ROOT / "proto", TMP / "tree/proto")
    ignored = shutil.ignore_patterns("lwqv1", "lwq-example", "build")
    shutil.copytree(EXAMPLES, TMP / "tree/examples/clients", ignore=ignored, symlinks=True)
    return TMP / "tree/examples/clients"


def build_go(tree):
    """The program, or None and a message."""
    missing = [tool for tool in ("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc") if shutil.which(tool) is None]
    if missing or not DEBIAN_GO.exists():
        print(f"not checked: Go, for want of {', '.join(missing) or 'golang-google-grpc-dev'}")
        return None
    run([tree / "go/generate.sh"])
    (TMP / "gopath/src").mkdir(parents=True)
    (TMP / "gopath/src/lwq-example").symlink_to(tree / "go")
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "lwq-go-build"
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": f"{TMP}/gopath:/usr/share/gocode", "GOCACHE": str(cache), "GOFLAGS": "-p=2"}
    built = subprocess.run(["go", "build", "-o", TMP / "go-example", "lwq-example"], env=environment, cwd=TMP / "gopath/src/lwq-example",
                           capture_output=True, text=True)
    check(built.returncode == 0, f"the Go example compiles {built.stderr[-1500:]}")
    vetted = subprocess.run(["go", "vet", "lwq-example"], env=environment, cwd=TMP / "gopath/src/lwq-example", capture_output=True, text=True)
    check(vetted.returncode == 0, f"go vet finds nothing {vetted.stderr[-1500:]}")
    return [TMP / "go-example"] if built.returncode == 0 else None


def build_typescript(tree):
    """The command of the program where its libraries are installed; else its own types are checked alone."""
    folder = tree / "typescript"
    tsc = shutil.which("tsc") or (folder / "node_modules/.bin/tsc" if (folder / "node_modules/.bin/tsc").exists() else None)
    if tsc is None or shutil.which("node") is None:
        print("not checked: TypeScript, for want of node or tsc")
        return None
    with_libraries = (folder / "node_modules/@grpc/grpc-js").exists()
    if not with_libraries:
        print("not run: the TypeScript example, for want of its libraries (npm install); its own types are checked")
        (folder / "stubs.d.ts").write_text(NODE_STUBS)
        settings = json.loads((folder / "tsconfig.json").read_text())
        settings["include"].append("stubs.d.ts")
        settings["compilerOptions"]["types"] = []
        settings["compilerOptions"]["lib"] = ["es2022"]
        (folder / "tsconfig.json").write_text(json.dumps(settings))
    built = subprocess.run([tsc, "-p", folder], capture_output=True, text=True)
    check(built.returncode == 0 and (folder / "build/main.js").exists(), f"the TypeScript example compiles {built.stdout[-1500:]}")
    source = (folder / "main.ts").read_text()
    (folder / "main.ts").write_text(source.replace("model.name, budget", "model.nam, budget"))
    check(subprocess.run([tsc, "-p", folder, "--noEmit"], capture_output=True).returncode != 0, "a wrong field is found out")
    return ["node", folder / "build/main.js"] if with_libraries else None


def use(name, command, address, environment):
    out = TMP / f"out-{name}"
    cut = TMP / f"out-{name}/model.safetensors"
    for attempt in ("whole", "cut"):
        if attempt == "cut":  # as an interrupted one leaves it
            cut.write_bytes(cut.read_bytes()[:300_000])
        done = subprocess.run([*command, address, SAMPLE, "4.5", out], env=environment, capture_output=True, text=True, timeout=120)
        good = done.returncode == 0 and "bits per weight" in done.stdout
        check(good, f"{name}: a job, its files {attempt}: {(done.stdout + done.stderr).strip()[-3000:]}")
        if not good:
            return
    manifest = json.loads((out / "lwq-manifest.json").read_text())
    wrong = [f["name"] for f in manifest["files"] if hashlib.sha256((out / f["name"]).read_bytes()).hexdigest() != f["sha256"]]
    check(not wrong, f"{name}: {len(manifest['files'])} files have their digests {wrong or ''}")
    refused = subprocess.run([*command, address, SAMPLE, "0.5", out], env=environment, capture_output=True, text=True, timeout=60)
    check(refused.returncode == 1 and refused.stderr.startswith("BUDGET_INFEASIBLE:"), f"{name}: an error has its reason: {refused.stderr.strip()[:100]}")


def check_fields(tree):
    """The names in the TypeScript program, whose messages have no generated types, are fields of the protos."""
    protos = "".join(path.read_text() for path in (tree.parents[1] / "proto/lwq/v1").glob("*.proto"))
    known = set(re.findall(r"(\w+) = \d+;", protos))
    interfaces = (tree / "typescript/main.ts").read_text().split("\ninterface ", 1)[1].split("\n\n", 1)[0]
    names = set(re.findall(r"(\w+)\??:", interfaces))
    check(len(names) > 10 and not names - known, f"the TypeScript example's {len(names)} fields are in the protos {sorted(names - known) or ''}")


def main():
    tree = copied()
    programs = {"go": build_go(tree), "typescript": build_typescript(tree)}
    check_fields(tree)
    if not any(programs.values()):
        finish()
        skip("no example was run: see above")
    lwq("lwq-server"), lwq("lwq-worker")
    run([ROOT / "deploy/kubernetes/make_credentials.sh", TMP / "ca"])
    tls = [f"--tls-cert={TMP}/ca/server.crt", f"--tls-key={TMP}/ca/server.key", f"--tls-client-ca={TMP}/ca/ca.crt"]
    _, address = start_server("server", "localhost:0", None, *tls)
    start_worker(address, "worker", None, f"--tls-ca={TMP}/ca/ca.crt", f"--tls-cert={TMP}/ca/worker.crt", f"--tls-key={TMP}/ca/worker.key")
    user = {**os.environ, "LWQ_QUICK": "1", "LWQ_TLS_CA": f"{TMP}/ca/ca.crt", "LWQ_TLS_CERT": f"{TMP}/ca/user.crt", "LWQ_TLS_KEY": f"{TMP}/ca/user.key"}
    for name, command in programs.items():
        if command:
            use(name, command, address, user)


main()
finish()
