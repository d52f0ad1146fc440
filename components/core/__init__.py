"""What every room may use: strict config, frozen records, safe files, runtime choices, progress."""

from components.core.artifacts import (
    Ablation,
    Checkpoint,
    CopyingFigures,
    EvaluationReport,
    IdentityFigures,
    ObedienceFigures,
    Personalization,
    PhotoFolder,
    Promotion,
    Record,
    ShardFile,
    ShardManifest,
)
from components.core.config import StrictConfig, deep_merge, dump_yaml, fingerprint, load_yaml
from components.core.experiment import experiment_id
from components.core.face_weight import face_weight
from components.core.progress import Progress, track
from components.core.ray_session import ray_session
from components.core.runtime import (
    derive_seed,
    peak_memory,
    pick_device,
    pick_dtype,
    seed_everything,
    setup_logging,
)
from components.core.settings import RuntimeConfig, TrackingConfig
from components.core.shared_store import SharedStore
from components.core.storage import (
    atomic_path,
    inside,
    remove_halves,
    sha256_file,
    sha256_folder,
    write_bytes_atomic,
    write_text_atomic,
)

__all__ = [
    "Ablation",
    "Checkpoint",
    "CopyingFigures",
    "EvaluationReport",
    "IdentityFigures",
    "ObedienceFigures",
    "Personalization",
    "PhotoFolder",
    "Progress",
    "Promotion",
    "Record",
    "RuntimeConfig",
    "ShardFile",
    "ShardManifest",
    "SharedStore",
    "StrictConfig",
    "TrackingConfig",
    "atomic_path",
    "deep_merge",
    "derive_seed",
    "dump_yaml",
    "experiment_id",
    "face_weight",
    "fingerprint",
    "inside",
    "load_yaml",
    "peak_memory",
    "pick_device",
    "pick_dtype",
    "ray_session",
    "remove_halves",
    "seed_everything",
    "setup_logging",
    "sha256_file",
    "sha256_folder",
    "track",
    "write_bytes_atomic",
    "write_text_atomic",
]
