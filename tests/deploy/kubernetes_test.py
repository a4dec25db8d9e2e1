"""deploy/kubernetes: each overlay is built and checked against the schemas of Kubernetes, the rules for pods, and the
flags that the binaries know. kubernetes_failover_test.py runs the processes."""
import re
import subprocess
import urllib.parse

import flags
from processes import ROOT, TMP, check, finish, lwq, need, run, skip

try:
    import yaml
except ImportError:
    skip("this Python has no PyYAML")
try:
    import kubernetes_validate
except ImportError:
    skip("this Python has no kubernetes-validate")

VERSION = "1.32"
OVERLAYS = ("embedded", "postgres-s3", "postgres-s3-keda", "gpu")
PROGRAMS = {"lwq-server": "lwq-server", "lwq-worker-cpu": "lwq-worker", "lwq-worker-cuda": "lwq-worker"}


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


# The Pod Security Standard "restricted", which the namespace asks for, as far as objections() does not ask for more.
ALLOWED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def not_restricted(pod):
    wrong = [field for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field)]
    wrong += [f"volume {v['name']}" for v in pod["volumes"] if not set(v) - {"name"} <= ALLOWED_VOLUMES]
    wrong += [field for field in ("sysctls", "seLinuxOptions", "windowsOptions") if field in pod["securityContext"]]
    wrong += ["user 0"] if 0 in (pod["securityContext"]["runAsUser"], pod["securityContext"].get("fsGroup")) else []
    for container in pod.get("initContainers", []) + pod["containers"]:
        wrong += [f"hostPort of {container['name']}" for port in container.get("ports", []) if "hostPort" in port]
        wrong += [f"{field} of {container['name']}" for field in ("privileged", "procMount") if field in container["securityContext"]]
    return wrong


def disk_objections(pod):
    """What the kubelet and the scheduler do not learn of the pod's disk. Without a request for as much as its volumes may grow to,
    more pods are put on a node than its disk holds, and some are evicted in the middle of their work."""
    wrong = [f"volume {v['name']} has no limit" for v in pod["volumes"] if "emptyDir" in v and "sizeLimit" not in v["emptyDir"]]
    volumes = sum(bytes_of(v["emptyDir"]["sizeLimit"]) for v in pod["volumes"] if "sizeLimit" in v.get("emptyDir", {}))
    asked = [bytes_of(c["resources"]["requests"]["ephemeral-storage"]) for c in pod["containers"]
             if "ephemeral-storage" in c["resources"]["requests"]]
    if sum(asked) < volumes:
        wrong.append(f"{sum(asked) >> 30} GiB asked for, {volumes >> 30} GiB of volumes")
    if pod["securityContext"].get("fsGroupChangePolicy") != "OnRootMismatch":
        wrong.append("each start changes the owner of each file of its volumes")
    return wrong


def gpu_objections(pod):
    """A worker with CUDA gets a GPU that is its own, is put where there are some and uses it; nobody else takes one away."""
    wrong = []
    for container in pod["containers"]:
        wanted = container["image"].startswith("lwq-worker-cuda:")
        gpus = {list_: container["resources"].get(list_, {}).get("nvidia.com/gpu") for list_ in ("limits", "requests")}
        if gpus["limits"] != ("1" if wanted else None) or gpus["requests"] not in (None, gpus["limits"]):
            wrong.append(f"{container['name']} asks for {gpus}")
        devices = [word for word in container["args"] if word.startswith("--device")]
        if devices != (["--device=cuda:0"] if wanted else []):  # of those that it sees, which is the one that it got
            wrong.append(f"{container['name']} runs on {devices}")
        tolerated = any(t["key"] == "nvidia.com/gpu" and t["effect"] == "NoSchedule" for t in pod.get("tolerations", []))
        if tolerated != wanted:
            wrong.append(f"{container['name']} {'may not go' if wanted else 'may go'} where GPUs are")
    return wrong


def way_in(pod):
    """The port of the API, which `kubectl port-forward` reaches also on the loopback; None where there is only a socket in the pod."""
    server = next((c for c in pod["containers"] if c["image"].startswith("lwq-server:")), None)
    words = dict(word.split("=", 1) for word in server["args"]) if server else {}
    match = re.fullmatch(r"(\S+):(\d+)", words.get("--listen", ""))
    return int(match[2]) if match and not match[1].startswith("unix") else None


def check_claims(resources):
    """Somebody has to be able to put the models there."""
    for claim in (r for r in resources if r["kind"] == "PersistentVolumeClaim"):
        modes = claim["spec"]["accessModes"]
        check(set(modes) & {"ReadWriteMany", "ReadWriteOnce"}, f"  claim {claim['metadata']['name']} can be filled: {modes}")


def check_commands(resource):
    for container in pod_of(resource)["containers"]:
        program = PROGRAMS[container["image"].split(":")[0]]
        bad = flags.wrong(program, container["args"], [v["name"] for v in container.get("env", [])])
        check(not bad, f"  {container['name']}: {program} knows its flags and variables {bad or ''}")
        listens = [w.rsplit(":", 1)[1] for w in container["args"] if w.startswith("--metrics-listen")]
        check(listens == [str(container["livenessProbe"]["httpGet"]["port"])], f"  {container['name']}: probes ask where it listens")


def labels_of(resource):
    spec = resource["spec"]
    return spec.get("jobTargetRef", spec)["template"]["metadata"]["labels"]


def selects(selector, labels):
    return set(selector.get("matchLabels", {}).items()) <= set(labels.items())


def budget_objections(budget, pods):
    """Kubernetes counts the pods that a budget with maxUnavailable wants by the scale of who made them. A Job has none, and
    its pods could not be evicted at all."""
    kinds = {p["kind"] for p in pods if selects(budget["spec"]["selector"], labels_of(p))}
    wrong = sorted(kinds - {"Deployment", "StatefulSet"}) + ([] if kinds else ["selects nothing"])
    return wrong if "maxUnavailable" in budget["spec"] else ["no maxUnavailable"]


def unscraped(resource, policies):
    """Ports for metrics where the policies do not let Prometheus in."""
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    let_in = {port["port"] for policy in policies if selects(policy["spec"]["podSelector"], labels_of(resource))
              for rule in policy["spec"].get("ingress", []) if monitoring in rule.get("from", [monitoring]) for port in rule["ports"]}
    ports = [p for c in pod_of(resource)["containers"] for p in c["ports"] if p["name"].endswith("metrics")]
    return [p["containerPort"] for p in ports if p["containerPort"] not in let_in] if ports else ["no port of metrics"]


def bytes_of(text):
    number, unit = re.fullmatch(r"(\d+)(\w+?)B?", text).groups()
    return int(number) << {"Mi": 20, "Gi": 30, "Ti": 40}[unit]


def work_space(pod):
    """For each worker of a pod: (bytes of the volume under its --work-dir, bytes of its cache)."""
    volumes = {v["name"]: v for v in pod["volumes"]}
    for container in pod["containers"]:
        args = dict(word.split("=", 1) for word in container["args"])
        if "--cache-size" in args:
            volume = next(m["name"] for m in container["volumeMounts"] if m["mountPath"] == args["--work-dir"])
            yield bytes_of(volumes[volume]["emptyDir"]["sizeLimit"]), bytes_of(args["--cache-size"])


def egress_objections(resource, policies):
    """Ports of the addresses on a server's command line that the policies do not let it reach."""
    rules = [rule for policy in policies if selects(policy["spec"]["podSelector"], labels_of(resource)) for rule in policy["spec"].get("egress", [])]
    open_ports = {port["port"] for rule in rules if "to" not in rule for port in rule["ports"]}
    wrong = []
    for word in (word for c in pod_of(resource)["containers"] for word in c["args"] if re.match(r"--(store|blobs)=\w+://", word)):
        url = urllib.parse.urlsplit(word.split("=", 1)[1])
        endpoint = urllib.parse.urlsplit(urllib.parse.parse_qs(url.query).get("endpoint", [""])[0]) if url.scheme == "s3" else url
        port = endpoint.port or {"postgresql": 5432, "https": 443}[endpoint.scheme]
        wrong += [] if port in open_ports else [word]
    return wrong


def scraped(labels):
    """The labels that prometheus-kubernetes.yml gives a target with these of Kubernetes; None when it leaves it out."""
    settings = yaml.safe_load((ROOT / "deploy/prometheus/prometheus-kubernetes.yml").read_text())
    given = {}
    for rule in settings["scrape_configs"][0]["relabel_configs"]:
        value = ";".join(labels.get(s, "") for s in rule["source_labels"])
        match = re.fullmatch(rule.get("regex", "(.*)"), value)
        if rule.get("action") in ("keep", "drop") and (match is not None) != (rule["action"] == "keep"):
            return None
        if "action" not in rule and match:
            given[rule["target_label"]] = match.expand(rule.get("replacement", "$1").replace("$", "\\"))
    return given


def check_scraping():
    for port, phase, expected in (("metrics", "Running", True), ("worker-metrics", "Running", True), ("grpc", "Running", False),
                                  ("metrics", "Succeeded", False), ("metrics", "Failed", False)):
        labels = {"__meta_kubernetes_pod_container_port_name": port, "__meta_kubernetes_pod_phase": phase}
        check((scraped(labels) is not None) == expected, f"Prometheus {'asks' if expected else 'leaves out'} port {port} of a pod that is {phase}")


def check_query(scaled_job):
    """KEDA's query counts what the server of its own namespace has, by a label that Prometheus gives."""
    namespace = scaled_job["metadata"]["namespace"]
    labels = scraped({"__meta_kubernetes_pod_container_port_name": "metrics", "__meta_kubernetes_pod_phase": "Running",
                      "__meta_kubernetes_namespace": namespace, "__meta_kubernetes_pod_container_name": "server"})
    query = scaled_job["spec"]["triggers"][0]["metadata"]["query"]
    asked = dict(re.findall(r'(\w+)="([^"]*)"', query))
    check(asked == {"namespace": namespace} and asked.items() <= labels.items(), f"  KEDA asks for {query}, of targets with {labels}")


def check_overlay(overlay, resources):
    pods = [r for r in resources if pod_of(r)]
    for budget in (r for r in resources if r["kind"] == "PodDisruptionBudget"):
        wrong = budget_objections(budget, pods)
        check(not wrong, f"  budget {budget['metadata']['name']} never blocks a drain for ever {wrong or ''}")
    policies = [r for r in resources if r["kind"] == "NetworkPolicy"]
    for resource in pods:
        name = f"{resource['kind']} {resource['metadata']['name']}"
        wrong = not_restricted(pod_of(resource))
        check(not wrong, f"  {name}: admitted as restricted {wrong or ''}")
        wrong = disk_objections(pod_of(resource))
        check(not wrong, f"  {name}: its disk is asked for {wrong or ''}")
        wrong = gpu_objections(pod_of(resource))
        check(not wrong, f"  {name}: a GPU for whom needs one {wrong or ''}")
        wrong = egress_objections(resource, policies)
        check(not wrong, f"  {name}: may reach its records and blobs, wherever they are {wrong or ''}")
        wrong = unscraped(resource, policies)
        check(not wrong, f"  {name}: Prometheus is let in {wrong or ''}")
        for space, cache in work_space(pod_of(resource)):
            check(space >= 3 * cache, f"  {name}: {space >> 30} GiB hold a cache of {cache >> 30} GiB and what a task needs beside it")
    check_claims(resources)
    ports = [way_in(pod_of(r)) for r in pods if r["kind"] == "StatefulSet"]
    check(ports == [7421], f"  lwqctl on a user's machine finds a way in, by port {ports}")
    images = {c["image"].split(":")[0] for r in pods for c in pod_of(r)["containers"]}
    check(images == {"lwq-server", "lwq-worker-cuda" if overlay == "gpu" else "lwq-worker-cpu"}, f"  images {sorted(images)}")
    for image in images:
        check(f" AS {image.removeprefix('lwq-')}\n" in (ROOT / "Dockerfile").read_text(), f"  the Dockerfile makes {image}")
    if overlay == "embedded":
        check(pods[0]["spec"]["replicas"] == 1, "  one server on one SQLite store")


def check_exit_codes(resources):
    """What a Job takes for "another try does not help" is what a wrong command line ends with."""
    job = next(r for r in resources if r["kind"] == "ScaledJob")["spec"]["jobTargetRef"]
    codes = next(rule["onExitCodes"]["values"] for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule)
    for words in (["--no-such-flag"], ["--server", "nowhere", "--work-dir", "/tmp"], ["--log-format", "xml"]):
        code = subprocess.run([lwq("lwq-worker"), *words], capture_output=True).returncode
        check(code in codes, f"lwq-worker {' '.join(words)} ends with {code}, one of {codes}")


def check_certificates():
    """Made anew, they are still of the authority that everybody knows, and each is good for its own side alone."""
    folder = TMP / "ca"
    make = [ROOT / "deploy/kubernetes/make_credentials.sh", folder]
    run(make)
    old = {name: (folder / name).read_bytes() for name in ("ca.crt", "worker.crt", "server.crt")}
    run(make)
    check((folder / "worker.crt").read_bytes() == old["worker.crt"], "a certificate that is good for long is kept")
    (folder / "worker.crt").unlink()
    run(make)
    check((folder / "worker.crt").read_bytes() != old["worker.crt"] and (folder / "server.crt").read_bytes() == old["server.crt"],
          "one that was removed is made anew, the others stay")
    check((folder / "ca.crt").read_bytes() == old["ca.crt"], "the authority stays")
    run([*make, "365", "lwq.example.com"])
    names = run(["openssl", "x509", "-in", folder / "server.crt", "-noout", "-ext", "subjectAltName"])
    check("DNS:lwq.example.com" in names, "a further name of the server is in its certificate")
    (folder / "ca.key").rename(folder / "put-away")
    run([*make, "365", "lwq.example.com"])
    check((folder / "ca.crt").read_bytes() == old["ca.crt"], "with the authority's key put away it stays, while nothing has to be made")
    missing = subprocess.run(make, capture_output=True, text=True)
    check(missing.returncode == 1 and "ca.key" in missing.stderr and (folder / "ca.crt").read_bytes() == old["ca.crt"],
          "and what has to be made is refused, with the key named")
    (folder / "put-away").rename(folder / "ca.key")
    for name, good, bad in (("server", "sslserver", "sslclient"), ("worker", "sslclient", "sslserver"), ("user", "sslclient", "sslserver")):
        verify = ["openssl", "verify", "-CAfile", folder / "ca.crt", "-purpose"]
        codes = [subprocess.run([*verify, purpose, folder / f"{name}.crt"], capture_output=True).returncode for purpose in (good, bad)]
        check(codes[0] == 0 and codes[1] != 0, f"the certificate {name} is of the authority, for {good} alone")
    left = subprocess.run(["openssl", "x509", "-in", folder / "ca.crt", "-noout", "-checkend", str(5 * 365 * 86400)], capture_output=True)
    check(left.returncode == 0, "the authority outlives what it signs")
    check(all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir()), "nobody else may read the keys")


def check_loader():
    pod, policy = yaml.safe_load_all((ROOT / "deploy/kubernetes/loader.yaml").read_text())
    for resource in (pod, policy):
        error = schema_errors(resource)
        check(not error, f"loader.yaml: {resource['kind']} fits the schema {error}")
    wrong = not_restricted(pod["spec"])
    check(not wrong, f"loader.yaml: admitted as restricted {wrong or ''}")
    check(selects(policy["spec"]["podSelector"], pod["metadata"]["labels"]), "loader.yaml: its policy is its pod's")


def main():
    kubectl = need("kubectl")
    check_scraping()
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
        check_overlay(overlay, resources)
        for scaled_job in (r for r in resources if r["kind"] == "ScaledJob"):
            check_query(scaled_job)
    check_exit_codes(build(kubectl, "postgres-s3-keda"))
    check_certificates()
    check_loader()
    planted = build(kubectl, "embedded")
    pod = next(r for r in planted if r["kind"] == "StatefulSet")
    pod["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = False
    check(objections(pod, {"ConfigMap": [], "PriorityClass": ["lwq-server"]}), "a pod with a root that can be written is found out")
    pod["spec"]["template"]["spec"]["containers"][1]["image"] = "lwq-worker-cuda:0.1.0"
    check(len(gpu_objections(pod_of(pod))) >= 3, "a worker with CUDA that gets no GPU is found out")
    pod["spec"]["replicsa"] = 1
    check(schema_errors(pod), "a field that does not exist is found out")


main()
finish()
