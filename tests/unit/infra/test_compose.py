"""The team's services as compose describes them: valid, complete, closed until somebody sets passwords."""

import re

import pytest
import yaml

from flows.cli import build_parser
from flows.environment import PROJECT
from tests.compose import FOLDER, Compose, example_values

compose_file = FOLDER / "compose.yaml"


@pytest.fixture(scope="module")
def compose() -> Compose:
    return Compose.load(example_values())


def test_the_file_fits_the_compose_specification(run_tool):
    run_tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(compose_file))


def test_a_wrong_field_is_refused(run_tool, tmp_path):
    bad = tmp_path / "compose.yaml"
    bad.write_text(compose_file.read_text().replace("healthcheck:", "healthchecks:"))
    with pytest.raises(AssertionError, match="healthchecks"):
        run_tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(bad))


def test_all_of_a_teams_services_are_there_with_health_checks(compose):
    daemons = {"postgres", "store", "mlflow", "prefect", "worker", "ray-head", "ray-worker"}
    once = {"bucket", "deploy"}
    assert set(compose.services) == daemons | once
    for name in daemons:
        assert compose.services[name]["healthcheck"]["test"], name
        assert compose.services[name]["restart"] == "unless-stopped", name
    for name in once:
        assert compose.services[name]["restart"] == "no"
    for name, service in compose.services.items():
        for other, how in (service.get("depends_on") or {}).items():
            expected = "service_completed_successfully" if other in once else "service_healthy"
            assert how["condition"] == expected, (name, other)


def test_no_password_has_a_default():
    """Every value that example.env leaves empty is demanded, and every secret in the file is one of those."""
    wanted = {name for name, value in example_values(empty=True).items() if not value}
    for name in wanted:
        with pytest.raises(ValueError, match=rf"set {name} in infra/compose/.env"):
            Compose.load({**example_values(), name: ""})
    text = compose_file.read_text()
    secret = re.compile(r"^\s*\w*(PASSWORD|SECRET|TOKEN|ACCESS_KEY)\w*:\s*(.+)$", re.M)
    found = secret.findall(text)
    assert len(found) >= 10
    for name, value in found:
        assert re.match(r'"?\$\{\w+:\?', value), f"{name}: {value}"


def test_pages_are_bound_to_this_machine_alone(compose):
    ports = [port for service in compose.services.values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_passwords_stand_in_no_command(compose):
    secrets = {value for name, value in compose.values.items() if name in example_values(empty=True)}
    for name, service in compose.services.items():
        words = " ".join(map(str, service.get("command", [])))
        assert not any(secret in words for secret in secrets), name


def test_no_thread_of_mlflow_waits_for_a_connection(compose):
    threads, stores = 40, 2  # anyio's threads a process; runs and users have a pool each
    values = compose.environment("mlflow")
    pool = sum(int(values[f"MLFLOW_SQLALCHEMYSTORE_{name}"]) for name in ("POOL_SIZE", "MAX_OVERFLOW"))
    assert pool >= threads
    found = re.search(r"max_connections=(\d+)", " ".join(compose.services["postgres"]["command"]))
    processes = int(re.search(r"--workers=(\d+)", " ".join(compose.services["mlflow"]["command"]))[1])
    assert int(found[1]) >= processes * stores * pool + 50  # Prefect and a person who looks


def test_files_that_are_mounted_exist(compose):
    for service in compose.services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            known = (FOLDER / source).exists() if source.startswith(".") else source in compose.volumes
            assert known, volume
    inside = compose.services["mlflow"]["environment"]["MLFLOW_AUTH_CONFIG_PATH"]
    assert (PROJECT / inside.removeprefix("/app/")).is_file()


def test_our_own_commands_exist(compose):
    for service in compose.services.values():
        command = service.get("command", [])
        if command[:1] == ["photoverse"]:
            build_parser().parse_args(command[1:])


def test_the_stores_identities_are_json(compose):
    import json

    content = compose.configs["identities"]["content"]
    (identity,) = json.loads(content)["identities"]
    assert identity["credentials"][0]["accessKey"] == compose.values["S3_ACCESS_KEY"]


def test_images_are_pinned():
    found = re.findall(r"image: \$\{\w+:-(\S+)\}", compose_file.read_text())
    assert len(found) == 3
    assert all(":" in image and not image.endswith(":latest") for image in found)
    assert yaml.safe_load(compose_file.read_text())["name"] == "photoverse"
