"""Every manifest against its schema: Kubernetes' strictly, KubeRay's by field, Prefect's by its worker."""

import copy
import json
import re
import shlex
from uuid import uuid4

import kubernetes_validate
import pytest

from components.core import load_yaml
from flows.cli import build_parser
from flows.commands.options import parse_settings
from flows.config import resolve
from flows.manifests import FOLDER, ClusterValues, documents, render, write_manifests
from tests.unit.infra import kuberay

KUBERNETES = "1.37"


@pytest.fixture(scope="module")
def values() -> ClusterValues:
    return ClusterValues.parse(load_yaml(FOLDER / "values.yaml"), source="values.yaml")


@pytest.fixture(scope="module")
def manifests(values):
    return render(values)


def validate(resource):
    kubernetes_validate.validate(resource, KUBERNETES, strict=True)


def ray(manifests, kind):
    return next(d for text in manifests.values() for d in documents(text) if d.get("kind") == kind)


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob"])
def test_ray_manifests_fit_kuberays_fields_and_kubernetes_pods(manifests, kind):
    found = ray(manifests, kind)
    assert found["apiVersion"] == "ray.io/v1"
    assert set(found) == {"apiVersion", "kind", "metadata", "spec"}
    assert kuberay.faults(found["spec"], kuberay.KINDS[kind]) == []
    templates = kuberay.pods(found["spec"], kuberay.KINDS[kind])
    assert len(templates) == 3  # head, prepare, train
    for template in templates:
        validate({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template})
        spec = template["spec"]
        mounted = {mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}
        assert spec["securityContext"]["runAsNonRoot"]


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("autoscaling", True, "spec.autoscaling: no such field"),
        ("enableInTreeAutoscaling", "yes", "wrong type"),
        ("workerGroupSpecs.0.minReplicas", None, "wrong type"),
        ("workerGroupSpecs.1.rayStartParams.num-gpus", 1, "expected text"),
        ("autoscalerOptions.upscalingMode", "Fast", "none of Default"),
    ],
)
def test_a_wrong_field_of_kuberay_is_seen(manifests, path, value, complaint):
    spec = copy.deepcopy(ray(manifests, "RayCluster")["spec"])
    *parents, last = path.split(".")
    at = spec
    for part in parents:
        at = at[int(part)] if part.isdigit() else at[part]
    at[last] = value
    assert any(complaint in fault for fault in kuberay.faults(spec, kuberay.CLUSTER))


def test_a_wrong_field_of_a_pod_is_seen(manifests):
    template = copy.deepcopy(kuberay.pods(ray(manifests, "RayJob")["spec"], kuberay.JOB)[0])
    template["spec"]["containers"][0]["imagePolicy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePolicy"):
        validate({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template})


def test_groups_scale_from_nothing_on_spot_machines_and_gpus_are_asked_for(manifests, values):
    groups = {group["groupName"]: group for group in ray(manifests, "RayCluster")["spec"]["workerGroupSpecs"]}
    assert ray(manifests, "RayCluster")["spec"]["enableInTreeAutoscaling"]
    for name, group in groups.items():
        assert (group["minReplicas"], group["maxReplicas"]) == (0, getattr(values, name).max_replicas)
        assert {"key": "photoverse/spot", "operator": "Exists", "effect": "NoSchedule"} in group["template"][
            "spec"
        ]["tolerations"]
    container = groups["train"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"] == values.image_cuda
    assert (
        "nvidia.com/gpu" not in groups["prepare"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    )


def test_without_spot_machines_nothing_asks_for_them(values):
    plain = values.model_copy(
        update={
            "prepare": values.prepare.model_copy(update={"spot": False}),
            "train": values.train.model_copy(update={"spot": False}),
        }
    )
    text = render(plain)["ray-cluster.yaml"]
    assert "photoverse/spot" not in text
    for template in kuberay.pods(documents(text)[0]["spec"], kuberay.CLUSTER):
        validate({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template})


def test_the_rayjobs_command_is_one_that_we_have(manifests):
    """Its options are known, and its settings make a valid config of its profile."""
    words = shlex.split(ray(manifests, "RayJob")["spec"]["entrypoint"])
    assert words[0] == "photoverse"
    options = build_parser().parse_args(words[1:])
    config = resolve(options.profile, parse_settings(options.settings), name=options.name)
    assert config.runtime.ray_address == "auto"
    assert config.train.use_gpu


def test_a_store_takes_the_place_of_the_volume(values):
    mlflow = "tracking.uri=http://mlflow:5000"
    run = values.run.model_copy(update={"settings": (*values.run.settings, mlflow)})
    update = {"runs_claim": None, "store": "s3://photoverse/runs", "run": run}
    made = render(values.model_copy(update=update))
    assert "persistentVolumeClaim" not in "".join(made.values())
    for template in kuberay.pods(documents(made["ray-cluster.yaml"])[0]["spec"], kuberay.CLUSTER):
        validate({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template})
    assert json.loads(made["work-pool.json"])["job_configuration"]
    test_the_rayjobs_command_is_one_that_we_have(made)
    words = shlex.split(ray(made, "RayJob")["spec"]["entrypoint"])
    assert "store=s3://photoverse/runs" in words
    for wrong in ({"store": "s3://photoverse/runs"}, {"runs_claim": None}):
        with pytest.raises(ValueError, match="set runs_claim or store, not both"):
            ClusterValues.parse(values.model_dump() | wrong, source="a test")


def test_prefects_worker_and_its_rights_are_valid(manifests):
    found = documents(manifests["prefect-worker.yaml"])
    assert [d["kind"] for d in found] == [
        "ServiceAccount", "Role", "RoleBinding", "Deployment", "PodDisruptionBudget",
    ]  # fmt: skip
    for document in found:
        validate(document)


def test_the_work_pool_makes_a_valid_job(manifests):
    """Prefect's own Kubernetes worker fills the template as it would for a flow run."""
    from prefect.client.schemas.objects import FlowRun
    from prefect.utilities.templating import apply_values
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    template = json.loads(manifests["work-pool.json"])
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])
    properties = template["variables"]["properties"]
    defaults = {name: about["default"] for name, about in properties.items() if "default" in about}
    given = defaults | {"name": "train", "command": "prefect flow-run execute", "env": {"A": "b"}}
    configuration = KubernetesWorkerJobConfiguration(**apply_values(template["job_configuration"], given))
    configuration.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="train", labels={}))
    job = configuration.job_manifest
    pod = job["spec"]["template"]["spec"]
    for name in (
        "parallelism",
        "completions",
    ):  # Prefect's worker demands them here; Kubernetes knows them not
        assert pod.pop(name) == 1
    container = pod["containers"][0]
    assert container["args"] == ["prefect", "flow-run", "execute"]
    assert {"name": "A", "value": "b"} in container["env"]
    assert container["envFrom"] == [{"secretRef": {"name": "photoverse"}}]
    assert job["metadata"]["namespace"] == "photoverse"
    validate(job)


def test_values_are_checked(tmp_path, values):
    bad = tmp_path / "values.yaml"
    text = (FOLDER / "values.yaml").read_text()
    bad.write_text(text.replace("max_replicas: 8", "max_replicas: 0", 1))
    with pytest.raises(ValueError, match="prepare.max_replicas"):
        write_manifests(bad, tmp_path / "out")
    bad.write_text(text.replace("photos=/app/runs/photos", "photos=$(id)"))
    with pytest.raises(ValueError, match="without spaces, quotes or shell signs"):
        write_manifests(bad, tmp_path / "out")


def test_every_manifest_is_written(tmp_path):
    written = write_manifests(FOLDER / "values.yaml", tmp_path)
    assert sorted(path.name for path in written) == [
        "prefect-worker.yaml", "ray-cluster.yaml", "ray-job.yaml", "work-pool.json",
    ]  # fmt: skip
