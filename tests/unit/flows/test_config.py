"""Loading, order and refusal of a run's settings; the run's folder."""

from pathlib import Path

import pytest

from components.inference.conditions import factor_at
from flows.config import PROFILES, PipelineConfig, anchored, load_config, open_run, reopen_run, resolve
from flows.environment import PROJECT


@pytest.fixture
def profile(tmp_path):
    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("*.yaml")))
def test_every_profile_is_valid(name):
    assert resolve(name, name="x").name == "x"


@pytest.mark.parametrize(("name", "depth"), [("sd21", 32), ("sd15", 24)])
def test_the_papers_recipe_is_in_the_profile(name, depth):
    config = resolve(name)
    train = config.train
    assert (train.optimizer.learning_rate, train.global_batch_size, train.steps) == (1e-4, 64, 60_000)
    weights = (train.face_loss.lambda_face, train.losses.lambda_text, train.losses.lambda_visual)
    assert weights == (0.01, 0.01, 0.001)
    assert (train.fusion.r1, train.fusion.r2) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert (config.prepare.identity_expand, config.prepare.target_expand) == (1.3, 3.0)
    assert len(config.model.layers(depth=depth)) == 5


def test_parameters_go_over_profile_goes_over_defaults(profile):
    file = profile("train: {steps: 7, global_batch_size: 4}\nruntime: {seed: 5}")
    config = resolve(file, {"train": {"steps": 9}})
    assert config.train.steps == 9  # flow parameter
    assert config.train.global_batch_size == 4  # profile, beside the overridden value
    assert config.runtime.seed == 5
    assert config.train.alpha == 1.0  # code default


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"trian": {}}, "trian: Extra inputs are not permitted"),
        ({"train": {"stesp": 3}}, "train.stesp: Extra inputs are not permitted; found 3"),
        ({"train": {"steps": 0}}, "train.steps: Input should be greater than or equal to 1; found 0"),
        ({"name": "../elsewhere"}, "name: Value error, a run's name is"),
        ({"runner": {"kind": "slurm"}}, "runner.kind: Input should be 'local' or 'ray-job'"),
    ],
)
def test_unknown_keys_and_values_out_of_range_are_named(overrides, complaint):
    with pytest.raises(ValueError, match="profile 'portraits' with flow parameters") as caught:
        resolve("portraits", overrides)
    assert complaint in str(caught.value)


def test_an_unknown_profile_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=r"'sd22' is not known .*known: portraits, portraits-full, sd15, sd21"
    ):
        resolve("sd22")


def test_to_the_end_the_loss_and_evaluation_draw_with_the_dials_of_batch():
    config = resolve("portraits-full")
    dials, sampled = config.batch.dials, config.train.sampled_face
    assert config.evaluation.dials == dials
    assert sampled.guidance_scale == dials.guidance_scale
    steps = len(sampled.sigma)
    schedule = [dials.sigma * factor_at(dials.sigma_schedule, step / steps) for step in range(steps)]
    assert list(sampled.sigma) == pytest.approx(schedule)


def test_a_broken_profile_is_refused(profile):
    with pytest.raises(ValueError, match="not valid YAML"):
        resolve(profile("train: [1,"))
    with pytest.raises(ValueError, match="must hold a mapping"):
        resolve(profile("- 1"))


def test_a_run_is_stored_and_read_back(tmp_path):
    config = resolve("portraits", {"root": str(tmp_path)}, name="one")
    stored = open_run(config)
    assert stored == tmp_path / "one" / "config.yaml"
    assert load_config(stored) == config
    assert reopen_run("one", str(tmp_path), {"runtime": {"seed": 3}}).runtime.seed == 3
    assert (tmp_path / "mlflow").is_dir()


def test_a_run_that_exists_is_refused_unless_resumed(tmp_path):
    config = resolve("portraits", {"root": str(tmp_path)}, name="one")
    open_run(config)
    with pytest.raises(ValueError, match="run 'one' exists in .*: choose another name, or set resume=true"):
        open_run(config)
    open_run(config, resume=True)


def test_a_run_that_is_missing_cannot_be_reopened(tmp_path):
    with pytest.raises(ValueError, match="no run 'none' in"):
        reopen_run("none", str(tmp_path))


def test_mlflow_moves_with_the_root_unless_it_has_its_own_place(tmp_path):
    assert PipelineConfig().tracking.uri == "sqlite:///runs/mlflow/mlflow.db"
    assert resolve("portraits", {"root": "/data"}).tracking.uri == "sqlite:////data/mlflow/mlflow.db"
    own = resolve("portraits", {"root": "/data", "tracking": {"uri": "http://127.0.0.1:5000"}})
    assert own.tracking.uri == "http://127.0.0.1:5000"


def test_anchored_paths_are_absolute_and_hub_names_stay(tmp_path):
    config = anchored(resolve("portraits", {"model": {"image_encoder": "openai/clip-vit-large-patch14"}}))
    assert config.tracking.uri == f"sqlite:///{PROJECT}/runs/mlflow/mlflow.db"
    assert config.tracking.artifact_location == str(PROJECT / "runs/mlflow/artifacts")
    assert config.model.image_encoder == "openai/clip-vit-large-patch14"
    here = anchored(resolve("portraits", {"photos": "tests/unit"}))
    assert here.photos == str(Path(__file__).parents[2] / "unit")


def test_a_run_on_a_cluster_joins_it_and_has_whole_paths():
    """A job works in a copy of the project: what a stage wrote there, or on a Ray of its own, was lost."""
    there = {"runner": {"kind": "ray-job", "ray_address": "http://head:8265"}}
    config = resolve("portraits", there | {"photos": "data/faces"}, name="x")
    assert config.runtime.ray_address == "auto"
    assert config.root == str(PROJECT / "runs")
    assert config.photos == str(PROJECT / "data/faces")
    assert config.tracking.uri == f"sqlite:///{PROJECT}/runs/mlflow/mlflow.db"
    chosen = there | {"root": "/mnt/runs", "runtime": {"ray_address": "ray://head:10001"}}
    config = resolve("portraits", chosen, name="x")
    assert (config.root, config.runtime.ray_address) == ("/mnt/runs", "ray://head:10001")
    assert resolve("portraits", name="x").runtime.ray_address == "local"


def test_a_store_is_a_url_and_on_a_cluster_asks_for_an_mlflow_server():
    assert resolve("portraits", {"store": "s3://b/runs"}, name="a").store == "s3://b/runs"
    with pytest.raises(ValueError, match=r"store: expected a URL such as s3://bucket/runs; found 'runs'"):
        resolve("portraits", {"store": "runs"})
    cluster = {"store": "s3://b/runs", "runner": {"kind": "ray-job", "ray_address": "http://head:8265"}}
    with pytest.raises(ValueError, match="needs an MLflow server: set tracking.uri"):
        resolve("portraits", cluster)
    assert resolve("portraits", cluster | {"tracking": {"uri": "http://mlflow:5000"}}, name="a").store


def test_a_run_in_a_store_is_known_on_every_machine(tmp_path):
    url = f"memory://{tmp_path.name}/runs"
    nodes = [{"store": url, "root": str(tmp_path / name)} for name in ("a", "b")]
    first, second = (resolve("portraits", node, name="one") for node in nodes)
    open_run(first)
    with pytest.raises(ValueError, match="run 'one' exists"):
        open_run(second)
    assert reopen_run("one", second.root, nodes[1]).train == first.train


def test_a_profile_may_extend_another(profile, tmp_path):
    file = profile("extends: sd21\nname: ours\ntrain: {steps: 7}")
    config, parent = resolve(file), resolve("sd21", name="ours")
    assert config.train.steps == 7
    assert config.model_copy(update={"train": parent.train}) == parent
    with pytest.raises(ValueError, match="extends itself"):
        resolve(profile(f"extends: {tmp_path / 'mine.yaml'}"))
