"""The fields of KubeRay's API `ray.io/v1`, as its CRDs of 1.5 name them, and the form of each.

"pod" is a core/v1 PodTemplateSpec, "any" any map, "words" a map of texts; a name with `!` must be there. Kept
by hand: the CRDs are a megabyte, nearly all of it the pod's fields, which kubernetes-validate knows.
"""

from typing import Any

RESOURCES = {"requests": "any", "limits": "any"}
AUTOSCALER = {
    "resources": RESOURCES, "image": str, "imagePullPolicy": str, "securityContext": "any", "version": str,
    "idleTimeoutSeconds": int, "upscalingMode": ("Default", "Aggressive", "Conservative"), "env": list,
    "envFrom": list, "volumeMounts": list,
}  # fmt: skip
HEAD = {
    "template!": "pod", "headService": "any", "enableIngress": bool, "rayStartParams": "words",
    "serviceType": str, "resources": "words", "labels": "words",
}  # fmt: skip
WORKERS = {
    "groupName!": str, "suspend": bool, "replicas": int, "minReplicas!": int, "maxReplicas!": int,
    "idleTimeoutSeconds": int, "rayStartParams": "words", "template!": "pod", "scaleStrategy": "any",
    "numOfHosts": int, "resources": "words", "labels": "words",
}  # fmt: skip
CLUSTER = {
    "upgradeStrategy": "any", "authOptions": {"mode": ("disabled", "token")}, "suspend": bool,
    "managedBy": str, "autoscalerOptions": AUTOSCALER, "headServiceAnnotations": "words",
    "enableInTreeAutoscaling": bool, "gcsFaultToleranceOptions": "any", "headGroupSpec!": HEAD,
    "rayVersion": str, "workerGroupSpecs": [WORKERS],
}  # fmt: skip
JOB = {
    "activeDeadlineSeconds": int, "backoffLimit": int, "rayClusterSpec": CLUSTER, "clusterSelector": "words",
    "submitterPodTemplate": "pod", "submitterConfig": {"backoffLimit": int}, "metadata": "words",
    "managedBy": str, "deletionStrategy": "any", "entrypoint": str, "runtimeEnvYAML": str, "jobId": str,
    "submissionMode": ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"), "suspend": bool,
    "entrypointResources": str, "entrypointNumCpus": (int, float), "entrypointNumGpus": (int, float),
    "ttlSecondsAfterFinished": int, "shutdownAfterJobFinishes": bool, "preRunningDeadlineSeconds": int,
}  # fmt: skip
KINDS = {"RayCluster": CLUSTER, "RayJob": JOB}


def faults(value: Any, form: Any, where: str = "spec") -> list[str]:
    """Returns what is wrong with a value of KubeRay's API, but for the insides of pods."""
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return [f"{where}: expected a map, found {value!r}"]
        known = {name.rstrip("!"): below for name, below in form.items()}
        found = [f"{where}.{name}: no such field" for name in value if name not in known]
        missing = [name[:-1] for name in form if name.endswith("!") and name[:-1] not in value]
        found += [f"{where}.{name}: missing" for name in missing]
        for name in set(value) & set(known):
            found += faults(value[name], known[name], f"{where}.{name}")
        return sorted(found)
    if isinstance(form, list):
        return [fault for i, item in enumerate(value) for fault in faults(item, form[0], f"{where}[{i}]")]
    if form in ("any", "pod"):
        return [] if isinstance(value, dict) else [f"{where}: expected a map, found {value!r}"]
    if form == "words":
        return [
            f"{where}.{k}: expected text, found {v!r}" for k, v in value.items() if not isinstance(v, str)
        ]
    if isinstance(form, tuple) and isinstance(form[0], str):
        return [] if value in form else [f"{where}: {value!r} is none of {', '.join(form)}"]
    right = isinstance(value, form) and not (isinstance(value, bool) and form is not bool)
    return [] if right else [f"{where}: {value!r} is of the wrong type"]


def pods(value: Any, form: Any) -> list[dict[str, Any]]:
    """Returns every pod template in a value of KubeRay's API."""
    if form == "pod":
        return [value]
    if isinstance(form, dict):
        known = {name.rstrip("!"): below for name, below in form.items()}
        return [pod for name in value if name in known for pod in pods(value[name], known[name])]
    if isinstance(form, list):
        return [pod for item in value for pod in pods(item, form[0])]
    return []
