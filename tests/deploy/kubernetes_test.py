"""deploy/kubernetes: each overlay is built and checked against the schemas of Kubernetes, the rules for pods, and the
flags that the binaries know. kubernetes_failover_test.py runs the processes."""
import re

import flags
from processes import ROOT, check, finish, need, run, skip

try:
    import yaml
except ImportError:
    skip("this Python has no PyYAML")
try:
    import kubernetes_validate
except ImportError:
    skip("this Python has no kubernetes-validate")

VERSION = "1.32"
OVERLAYS = ("embedded", "postgres-s3", "postgres-s3-keda")
PROGRAMS = {"lwq-server": "lwq-server", "lwq-worker-cpu": "lwq-worker"}


def build(kubectl, overlay):
    text = run([kubectl, "kustomize", ROOT / "deploy/kubernetes/overlays" / overlay])
    return list(yaml.safe_load_all(text))


def schema_errors(resource):
    if resource["kind"] == "ScaledJob":  # KEDA's own; what it makes is a Job
        resource = {"apiVersion": "batch/v1", "kind": "Job", "metadata": resource["metadata"],
                    "spec": {k: v for k, v in resource["spec"]["jobTargetRef"].items()}}
    try:
        kubernetes_validate.validate(resource, VERSION, strict=True)
    except kubernetes_validate.ValidationError as e:
        return str(e)
    return ""


def pod_of(resource):
    spec = resource.get("spec", {})
    return spec.get("jobTargetRef", spec).get("template", {}).get("spec")


def objections(resource, names):
    """What a policy would refuse in the pods of a resource, or what they name and is not there."""
    pod = pod_of(resource)
    wrong = []
    context = pod["securityContext"]
    if not (context["runAsNonRoot"] and context["runAsUser"] and context["seccompProfile"] == {"type": "RuntimeDefault"}):
        wrong.append("the pod's security context")
    if pod["automountServiceAccountToken"] or not pod.get("priorityClassName"):
        wrong.append("a token of the service account, or no priority")
    volumes = {v["name"]: v for v in pod["volumes"]}
    for container in pod.get("initContainers", []) + pod["containers"]:
        inner = container["securityContext"]
        if inner != {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}:
            wrong.append(f"security context of {container['name']}")
        if "memory" not in container["resources"]["limits"] or "cpu" not in container["resources"]["requests"]:
            wrong.append(f"resources of {container['name']}")
        if not re.fullmatch(r"lwq-[a-z-]+:\d+\.\d+\.\d+", container["image"]):
            wrong.append(f"image {container['image']}")
        claims = {c["metadata"]["name"] for c in resource["spec"].get("volumeClaimTemplates", [])}
        wrong += [f"volume {m['name']}" for m in container["volumeMounts"] if m["name"] not in volumes and m["name"] not in claims]
        ports = {p["containerPort"] for p in container.get("ports", [])}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if container[probe]["httpGet"]["port"] not in ports:
                wrong.append(f"{probe} of {container['name']}")
    for volume in pod["volumes"]:
        if "configMap" in volume and volume["configMap"]["name"] not in names["ConfigMap"]:
            wrong.append(f"config map {volume['configMap']['name']}")
    if pod["priorityClassName"] not in names["PriorityClass"]:
        wrong.append(f"priority class {pod['priorityClassName']}")
    return wrong


def check_commands(resource):
    for container in pod_of(resource)["containers"]:
        program = PROGRAMS[container["image"].split(":")[0]]
        bad = flags.wrong(program, container["args"], [v["name"] for v in container.get("env", [])])
        check(not bad, f"  {container['name']}: {program} knows its flags and variables {bad or ''}")
        listens = [w.rsplit(":", 1)[1] for w in container["args"] if w.startswith("--metrics-listen")]
        check(listens == [str(container["livenessProbe"]["httpGet"]["port"])], f"  {container['name']}: probes ask where it listens")


def main():
    kubectl = need("kubectl")
    for overlay in OVERLAYS:
        resources = build(kubectl, overlay)
        names = {kind: [r["metadata"]["name"] for r in resources if r["kind"] == kind] for kind in ("ConfigMap", "PriorityClass")}
        kinds = sorted(r["kind"] for r in resources)
        check(len(resources) >= 7, f"{overlay}: {', '.join(kinds)}")
        for resource in resources:
            error = schema_errors(resource)
            check(not error, f"  {resource['kind']} {resource['metadata']['name']} fits the schema {error}")
            if pod_of(resource):
                wrong = objections(resource, names)
                check(not wrong, f"  {resource['kind']} {resource['metadata']['name']} keeps the rules for pods {wrong or ''}")
                check_commands(resource)
        pods = [r for r in resources if pod_of(r)]
        for budget in (r for r in resources if r["kind"] == "PodDisruptionBudget"):
            check(budget["spec"]["maxUnavailable"] == 1, f"  {budget['metadata']['name']} never blocks a drain for ever")
        if overlay == "embedded":
            check(pods[0]["spec"]["replicas"] == 1, "  one server on one SQLite store")
    planted = build(kubectl, "embedded")
    pod = next(r for r in planted if r["kind"] == "StatefulSet")
    pod["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = False
    check(objections(pod, {"ConfigMap": [], "PriorityClass": ["lwq-server"]}), "a pod with a root that can be written is found out")
    pod["spec"]["replicsa"] = 1
    check(schema_errors(pod), "a field that does not exist is found out")


main()
finish()
