"""Checks what check.sh has rendered: schemas, settings, and what a platform team asks of every pod."""
import json
import pathlib
import re
import subprocess
import sys
import tomllib

import kubernetes_validate
import yaml

VERSIONS = ["1.30", "1.33", "1.35", "1.36"]
RELEASE = re.search(r'^\[workspace.package\]\nversion = "(.*)"', pathlib.Path("Cargo.toml").read_text(), re.M)[1]
work, ticketlog = pathlib.Path(sys.argv[1]), sys.argv[2]


def require(holds, what):
    if not holds:
        sys.exit(f"check.py: {what}")


def pod_of(thing):
    """The template of the pods of an object, or None."""
    spec = thing.get("spec") or {}
    if thing["kind"] == "Pod":
        return thing
    return (spec.get("jobTemplate", {}).get("spec", spec)).get("template") if thing["kind"] in WORKLOADS else None


WORKLOADS = ["Deployment", "CronJob"]


def settings_of(objects):
    for thing in objects:
        if thing["kind"] == "ConfigMap" and "ticketlog.toml" in thing["data"]:
            # The key of the masks is read, even here.
            (work / "mask-key").write_text(16 * "k")
            text = thing["data"]["ticketlog.toml"].replace("/run/secrets/ticketlog/mask-key", str(work / "mask-key"))
            (work / "ticketlog.toml").write_text(text)
            subprocess.run([ticketlog, "config", "--config", work / "ticketlog.toml"], check=True, stdout=subprocess.DEVNULL)
            return tomllib.loads(thing["data"]["ticketlog.toml"])
    return {}


def seconds(duration):
    count, unit = re.fullmatch(r"(\d+)(s|min)", duration).groups()
    return int(count) * (60 if unit == "min" else 1)


def paths_of(settings, container):
    """The files that a container reads: of its settings, its environment, its arguments."""
    for section in settings.values():
        for key, value in section.items():
            if value and (key.endswith("_file") or key in ["tls_ca", "tls_certificate", "tls_key"]):
                yield value
    for variable in container["env"]:
        if variable["name"].endswith("_FILE") or variable["name"] == "TICKETLOG_CONFIG":
            yield variable["value"]
    for argument in container["args"]:
        if re.match("--(tokens|proxy-secret|state-dir)=", argument):
            yield argument.split("=", 1)[1]


def check_pod(where, pod, settings, file):
    spec = pod["spec"]
    [container] = spec["containers"]
    image = container["image"]
    digest = file in ["everything", "keda"]
    require(image.endswith("@sha256:" + 64 * "0") if digest else image.endswith(f":{RELEASE}"), f"{where}: image {image} is not that of {RELEASE}")
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    require(all(mount["name"] in volumes for mount in container["volumeMounts"]), f"{where}: a mount without a volume")
    for path in paths_of(settings, container):
        require(any(path == mount or path.startswith(mount + "/") for mount in mounts), f"{where}: nothing is mounted at {path}")
    for volume in volumes.values():
        ephemeral = where.endswith("-desk") and digest  # the only one of the examples that says ephemeral: true
        require("emptyDir" not in volume or ephemeral, f"{where}: an emptyDir that nobody asked for")
        require("items" not in volume.get("secret", {}), f"{where}: not the whole Secret is mounted")
    security, own = spec["securityContext"], container["securityContext"]
    ids = [security.get(key) for key in ["runAsUser", "runAsGroup", "fsGroup"]]
    require(ids == [None if file == "openshift" else 65532] * 3, f"{where}: ids {ids}")
    require(security["runAsNonRoot"] and security["seccompProfile"]["type"] == "RuntimeDefault" and own["readOnlyRootFilesystem"]
            and own["capabilities"] == {"drop": ["ALL"]} and not own["allowPrivilegeEscalation"], f"{where}: not restricted")
    require(not spec["automountServiceAccountToken"], f"{where}: has a token for the API")
    if digest:
        kept = ["priorityClassName", "nodeSelector", "tolerations", "affinity", "imagePullSecrets"]
        require(all(spec.get(key) for key in kept), f"{where}: lacks one of {kept}")
        require(pod["metadata"]["labels"].get("team") == "tickets" and "/authorities" in mounts, f"{where}: lacks podLabels or extraVolumeMounts")
        require(pod["metadata"]["annotations"].get("example.org/owner"), f"{where}: lacks podAnnotations")
        require(any(one["name"] == "TICKETLOG_LOG__FILTER" for one in container["env"]), f"{where}: lacks extraEnv")
    if "run" in container["args"]:
        timeout = seconds(settings.get("shutdown", {}).get("timeout", "20s"))
        require(spec["terminationGracePeriodSeconds"] == timeout + 20, f"{where}: terminationGracePeriodSeconds does not follow shutdown.timeout")
        budget = int(settings.get("broker", {}).get("prefetch_bytes", "32MiB").removesuffix("MiB"))
        memory = 96 + 5 * budget * (1 + len(settings.get("route", {})))
        require(container["resources"]["limits"]["memory"] == f"{memory}Mi", f"{where}: its memory limit should be {memory}Mi")
    if container["args"][0] == "check":
        # Operators' logins as the workers' own would be trusted without dead_letter.operators, and the check would not warn.
        require(not any(one["name"] == "TICKETLOG_BROKER__URI_FILE" for one in container["env"]), f"{where}: has a login of workers")
        subprocess.run([ticketlog, *container["args"], "--help"], check=True, stdout=subprocess.DEVNULL)
    elif not where.endswith("-desk"):
        probe = container["readinessProbe"]
        require("--ready" in probe["exec"]["command"] if "exec" in probe else probe["httpGet"]["path"] == "/readyz", f"{where}: is ready without reason")
    listen = [argument for argument in container["args"] if argument.startswith("--listen=")]
    require(listen in [[], ["--listen=" + settings["http"]["listen"].replace("9464", "9465")]], f"{where}: {listen}")


def check_policies(file, objects, settings):
    policies = [thing["spec"] for thing in objects if thing["kind"] == "NetworkPolicy"]
    if not policies:
        return
    ports = lambda rules: {port["port"] for rule in rules for port in rule.get("ports", [])}
    egress, ingress = policies[0].get("egress", []), policies[0]["ingress"]
    require(9464 in ports(egress) and any("podSelector" in peer for rule in ingress for peer in rule["from"]), f"{file}: workers do not reach each other")
    require(not settings.get("telemetry", {}).get("otlp") or 4318 in ports(egress), f"{file}: no way to the collector")
    require(file != "openshift" or 5353 in ports(egress), f"{file}: no way to OpenShift's DNS")
    if file in ["ipv6", "everything", "keda"]:
        named = [rule for rule in egress if 5672 in ports([rule])]
        require(all(rule.get("to") for rule in named), f"{file}: networkPolicy.to does not narrow the rule")


def main():
    names, count, custom, pods = {}, 0, [], 0
    for path in sorted(work.glob("*.yaml")):
        file, chart = path.stem, not path.stem.startswith("kustomize-")
        objects = [thing for thing in yaml.safe_load_all(path.read_text()) if thing]
        settings = settings_of(objects)
        for thing in objects:
            kind, name = thing["kind"], thing["metadata"]["name"]
            is_test = thing["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"
            require(is_test or kind not in ["Job", "Pod"], f"{file}: {kind} {name} would run again with each upgrade")
            if chart:
                other = names.setdefault((kind, name), file)
                require(other == file, f"{kind} {name} is in {other} and in {file}")
                for selector in filter(None, [(thing.get("spec") or {}).get(key) for key in ["podSelector", "selector"]]):
                    labels = selector.get("matchLabels", selector)
                    require("app.kubernetes.io/instance" in labels, f"{kind} {name} selects the pods of other releases")
            if kind == "CronJob":
                require(thing["spec"]["suspend"], f"{name} would run by itself")
            if kind == "HorizontalPodAutoscaler":
                require(thing["spec"]["metrics"][0]["resource"]["target"]["type"] == "AverageValue", f"{name}: a share of a small request means nothing")
            if pod := pod_of(thing):
                pods += 1
                check_pod(f"{file}: {name}", pod, settings, file)
            group = thing["apiVersion"].split("/")[0]
            if "." in group and not group.endswith("k8s.io"):
                custom.append(thing)
                continue
            for version in VERSIONS:
                kubernetes_validate.validate(thing, version, strict=True)
                count += 1
        check_policies(file, objects, settings)
    require("ENV TICKETLOG_HTTP" not in pathlib.Path("deploy/docker/Dockerfile").read_text(), "the image's environment would override http.listen")
    console = yaml.safe_load(pathlib.Path("docker-compose.yml").read_text())["services"]["console"]
    require(console["secrets"] and "tokens" not in str(console["volumes"]), "compose: a missing file of tokens would become a folder")
    (work / "custom.json").write_text(json.dumps(custom))
    print(f"{len(names)} objects of the chart, {pods} pods, {count} checks against Kubernetes {', '.join(VERSIONS)}")


main()
