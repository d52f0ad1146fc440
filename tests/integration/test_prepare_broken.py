"""Strangers' files through Ray's pipeline: the run ends well, and each file is accounted for."""

from collections.abc import Callable
from pathlib import Path

import pytest
import skimage

from components.core import RuntimeConfig
from components.face import FaceConfig
from components.model import ModelConfig
from components.prepare import PrepareConfig, prepare
from tests.factories import tiny_base
from tests.unit.prepare import broken

SETTINGS = {"validation_share": 0.0, "heldout_share": 0.0, "batch_size": 32, "max_file_mb": 1}


@pytest.mark.parametrize("count", [130, pytest.param(2000, marks=pytest.mark.slow)])
def test_broken_files_among_good_ones(
    ray_local: None, tmp_path: Path, png_header: Callable[[int, int], bytes], count: int
) -> None:
    head = skimage.data.astronaut()[20:276, 90:346]
    expected = broken.fill(tmp_path / "photos", broken.heads(head), count, png_header(30_000, 30_000))
    kinds = {name.partition(" ")[2].rpartition(".")[0] for name in expected if " " in name}
    assert kinds >= {*broken.BROKEN, *broken.ODD, "bomb", "double"}

    def run(**more: float) -> None:
        manifest = prepare(
            config=PrepareConfig(**SETTINGS, **more), face=FaceConfig(),
            model=ModelConfig(base=str(tiny_base(tmp_path / "base"))),
            runtime=RuntimeConfig(device="cpu", num_cpus=2), source_folder=tmp_path / "photos",
            folder=tmp_path / "out",
        )  # fmt: skip
        broken.check_all_accounted_for(manifest, expected)

    with pytest.raises(ValueError, match=rf"of {count} photos were rejected .* at most 1% may be"):
        run(max_reject_share=0.01)
    run()  # the work is done: only the share is judged anew
