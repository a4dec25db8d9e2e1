"""Writes deploy/helm/lwq, a Helm chart, from what `kubectl kustomize` makes of deploy/kubernetes/overlays: one template for each
overlay, with a place for each of VALUES. So there is one source: a change there, and this again.

usage: deploy/helm/make_chart.py [DIR]   (DIR: deploy/helm/lwq)"""
import pathlib
import re
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
OVERLAYS = ("embedded", "postgres-s3", "postgres-s3-keda", "gpu")

# Name, what it is, where it stands (a regular expression for KIND/NAME/path.to.field) and which part of what stands there it is.
# The defaults are what the overlays have.
VALUES = (
    ("images.server", "the registry goes in front: registry.example.com/lwq-server:0.1.0", r".*\.image", r"(lwq-server:.*)"),
    ("images.workerCpu", "", r".*\.image", r"(lwq-worker-cpu:.*)"),
    ("images.workerCuda", "of gpu", r".*\.image", r"(lwq-worker-cuda:.*)"),
    ("store", "PostgreSQL; the password is in the secret", r".*\.args\.\d+", r"--store=(.*)"),
    ("blobs", "S3; the keys are in the secret", r".*\.args\.\d+", r"--blobs=(.*)"),
    ("secrets.postgres", "PGPASSWORD", r".*\.secretRef\.name", r"(lwq-postgres)"),
    ("secrets.s3", "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY", r".*\.secretRef\.name", r"(lwq-s3)"),
    ("secrets.serverTls", "tls.crt, tls.key, ca.crt: deploy/kubernetes/make_credentials.sh", r".*\.secretName", r"(lwq-server-tls)"),
    ("secrets.workerTls", "the same", r".*\.secretName", r"(lwq-worker-tls)"),
    ("secrets.adminToken", "token: the same script", r".*\.secretName", r"(lwq-admin-token)"),
    ("servers", "of which one leads", r"StatefulSet/lwq-server/spec\.replicas", None),
    ("workers.min", "of the HorizontalPodAutoscaler of postgres-s3", r".*/spec\.minReplicas", None),
    ("workers.max", "", r".*/spec\.maxReplicas", None),
    ("workers.maxJobs", "of KEDA", r".*/spec\.maxReplicaCount", None),
    ("prometheus", "which KEDA asks", r"ScaledJob/.*serverAddress", r"(.*)"),
    ("namespaces.monitoring", "of Prometheus, which reads the metrics", r"NetworkPolicy/.*metadata\.name", r"(monitoring)"),
    ("ports.store", "of PostgreSQL, which servers may reach", r"NetworkPolicy/lwq-server/spec\.egress\.0\.ports\.0\.port", None),
    ("ports.blobs", "of S3, likewise", r"NetworkPolicy/lwq-server/spec\.egress\.0\.ports\.1\.port", None),
    ("models.size", "of the claim lwq-models", r"PersistentVolumeClaim/lwq-models/.*storage", r"(.*)"),
    ("models.accessMode", "ReadWriteOnce where all pods run on one node", r"PersistentVolumeClaim/lwq-models/spec\.accessModes\.0", r"(.*)"),
    ("records.size", "of embedded: records and blobs", r"StatefulSet/lwq/spec\.volumeClaimTemplates.*storage", r"(.*)"),
    ("worker.cpu", "", r".*WORKER\.resources\.requests\.cpu", r"(.*)"),
    ("worker.memory", "a quarter more than worker.ceiling", r".*WORKER\.resources\.(requests|limits)\.memory", r"(.*)"),
    ("worker.ceiling", "of what tasks are planned to take", r".*WORKER\.args\.\d+", r"--memory=(.*)"),
    ("worker.cache", "at least the largest artifact", r".*WORKER\.args\.\d+", r"--cache-size=(.*)"),
    ("worker.disk", "three times the cache", r".*WORK_VOLUME", r"(.*)"),
    ("worker.nodeDisk", "that, and 2Gi", r".*WORKER\.resources\.requests\.ephemeral-storage", r"(.*)"),
)


def overlay_text(overlay):
    return subprocess.run(["kubectl", "kustomize", ROOT / "deploy/kubernetes/overlays" / overlay], check=True, capture_output=True, text=True).stdout


def pod_of(resource):
    spec = resource.get("spec", {})
    return spec.get("jobTargetRef", spec).get("template", {}).get("spec", {})


def parts_of_worker(resource):
    """The paths of a pod's worker and of the limit of the volume that it works in, which differ between overlays."""
    pod = pod_of(resource)
    for i, container in enumerate(pod.get("containers", [])):
        if container["name"] != "worker":
            continue
        volume = next(mount["name"] for mount in container["volumeMounts"] if f"--work-dir={mount['mountPath']}" in container["args"])
        j = next(j for j, v in enumerate(pod["volumes"]) if v["name"] == volume)
        return f"containers.{i}.", f"volumes.{j}.emptyDir.sizeLimit"
    return None


def leaves(node, path=()):
    """(container, key, path) of every scalar."""
    for key, value in (node.items() if isinstance(node, dict) else enumerate(node)):
        if isinstance(value, (dict, list)):
            yield from leaves(value, (*path, str(key)))
        else:
            yield node, key, ".".join((*path, str(key)))


class Chart:
    def __init__(self):
        self.defaults = {}
        self.expressions = []

    def place(self, name, value, expression):
        """What is dumped in place of a value, to be replaced by the expression when it is text."""
        if self.defaults.setdefault(name, value) != value:
            sys.exit(f"make_chart: {name} is {self.defaults[name]!r} in one overlay and {value!r} in another")
        self.expressions.append(expression)
        return f"LWQ_PLACE_{len(self.expressions) - 1}_"

    def fill(self, resource):
        worker = parts_of_worker(resource)
        for node, key, path in list(leaves(resource)):
            where = f"{resource['kind']}/{resource['metadata']['name']}/{path}"
            if worker:
                where = where.replace(worker[0], "WORKER.").replace(worker[1], "WORK_VOLUME")
            for name, _, place, part in VALUES:
                match = re.fullmatch(part or r"(.*)", str(node[key])) if re.fullmatch(place, where) else None
                if match and part is None:
                    node[key] = self.place(name, node[key], f"{{{{ .Values.{name} }}}}")
                elif match:
                    before = match[0][:match.start(1)]
                    text = f'printf "{before}%s" .Values.{name}' if before else f".Values.{name}"
                    node[key] = self.place(name, match[1], f"{{{{ {text} | quote }}}}")
            if path == "metadata.namespace" or resource["kind"] == "Namespace" and path == "metadata.name":
                node[key] = self.place("", "", "{{ .Release.Namespace }}")
            if resource["kind"] == "ScaledJob" and key == "query":
                before, after = str(node[key]).split('namespace="lwq"')
                text = f'printf "{before}namespace=%q{after}" .Release.Namespace'
                node[key] = self.place("", "", f"{{{{ {text} | quote }}}}")
            # The only names that are the whole cluster's: a release in another namespace has its own.
            if key == "priorityClassName" or resource["kind"] == "PriorityClass" and path == "metadata.name":
                node[key] = self.place("", "", f"{node[key]}-{{{{ .Release.Namespace }}}}")
        return resource

    def template(self, overlay):
        text = f'{{{{- if eq .Values.overlay "{overlay}" }}}}\n'
        for resource in yaml.safe_load_all(overlay_text(overlay)):
            dumped = yaml.safe_dump(self.fill(resource), width=10**6)
            dumped = re.sub(r"LWQ_PLACE_(\d+)_", lambda match: self.expressions[int(match[1])], dumped)
            if resource["kind"] == "Namespace":
                dumped = f"{{{{- if .Values.createNamespace }}}}\n---\n{dumped}{{{{- end }}}}\n"
            else:
                dumped = f"---\n{dumped}"
            text += dumped
        return f"{text}{{{{- end }}}}\n"

    def values(self):
        lines = ["# Made by deploy/helm/make_chart.py.",
                 f"overlay: embedded  # or {', '.join(OVERLAYS[1:])}: docs/kubernetes.md",
                 "createNamespace: false  # helm install --create-namespace does; this one has the label for restricted pods"]
        group = ""
        for name, comment, *_ in VALUES:
            head, _, tail = name.rpartition(".")
            if head != group and head:
                lines.append(f"{head}:")
            group = head
            value = self.defaults[name]
            shown = value if isinstance(value, int) else f'"{value}"'
            lines.append(f"{'  ' if head else ''}{tail}: {shown}{f'  # {comment}' if comment else ''}")
        return "\n".join(lines) + "\n"


def files():
    """{path in the chart: text}."""
    version = re.search(r"project\(lwq VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
    chart = Chart()
    made = {f"templates/{overlay}.yaml": chart.template(overlay) for overlay in OVERLAYS}
    names = " ".join(f'"{overlay}"' for overlay in OVERLAYS)
    made["templates/overlay.yaml"] = (f"{{{{- if not (has .Values.overlay (list {names})) }}}}\n"
                                      f"{{{{- fail (printf \"overlay is %q; there are {', '.join(OVERLAYS)}\" .Values.overlay) }}}}\n{{{{- end }}}}\n")
    made["Chart.yaml"] = (f"# Made by deploy/helm/make_chart.py.\napiVersion: v2\nname: lwq\nversion: {version}\nappVersion: \"{version}\"\n"
                          "description: Quantizes language models to a memory budget\ntype: application\n")
    made["values.yaml"] = chart.values()
    return made


def main():
    directory = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "deploy/helm/lwq")
    for path, text in files().items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)


if __name__ == "__main__":
    main()
