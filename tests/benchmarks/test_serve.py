"""`serve_batch_gain`: requests of 8 people drawn together against one after the other, the same pictures.

From photo to picture, as the server's engine does it, on this repository's base; one thread, by the
processor's clock, so that the neighbours of a busy machine are not measured.
"""

import gc
import time
from pathlib import Path

import pytest
import torch

from components.core import RuntimeConfig
from components.inference import Dials, Personalizer
from components.model import ModelConfig, PhotoVerseAdapter, load_base, save_adapter
from components.portraits.world import portrait
from components.registry import Drawn, Job, PersonalizerEngine, Request
from tests.benchmarks.conftest import record

PEOPLE, ROUNDS = 8, 5
BASE = Path(__file__).parents[2] / "components/portraits/base"
DIALS = Dials(num_inference_steps=20, guidance_scale=2)  # as the portraits profile


@pytest.fixture(scope="module")
def personalizer(tmp_path_factory) -> Personalizer:
    model = ModelConfig(base=str(BASE))
    base = load_base(model)
    torch.manual_seed(0)
    adapter = PhotoVerseAdapter.create(base.unet, base.text_encoder, base.image_encoder, model)
    file = tmp_path_factory.mktemp("serve") / "adapter.safetensors"
    save_adapter(adapter, file)
    found = Personalizer.load(file, model, runtime=RuntimeConfig(device="cpu"))
    found.attachment.pipe.set_progress_bar_config(disable=True)
    return found


@pytest.fixture(scope="module")
def jobs() -> list[Job]:
    consent = {"person": "drawn", "purpose": "a test"}
    words = ["smiling", "with glasses", "", "on a red background"] * 2
    requests = [
        Request.model_validate(
            {"photo": "", "consent": consent, "prompt": f"a photo of S* {text}", "seed": i}
        )
        for i, text in enumerate(words)
    ]
    return [Job(request, portrait(i, 0, 128).image_uint8) for i, request in enumerate(requests)]


def floats(personalizer: Personalizer, jobs: list[Job]) -> torch.Tensor:
    """(N, H, W, 3) in [0, 1], before they are rounded to a picture file's 256 steps."""
    attachment = personalizer.attachment
    cards = [personalizer.card(job.photo_uint8) for job in jobs]
    inputs = attachment.inputs([job.request.prompt for job in jobs], cards, DIALS)
    inputs["generator"] = [torch.Generator("cpu").manual_seed(job.request.seed) for job in jobs]
    return torch.from_numpy(attachment.pipe(**inputs, output_type="np").images)


def test_people_drawn_together_are_as_each_alone(personalizer, jobs) -> None:
    together = floats(personalizer, jobs)
    alone = torch.cat([floats(personalizer, [job]) for job in jobs])
    apart = (together - alone).abs().max().item()
    print(f"apart {apart:.1e}")
    assert apart <= 1e-4


def test_drawing_people_together_is_faster_than_one_by_one(personalizer, jobs, bench_results) -> None:
    engine = PersonalizerEngine(personalizer, DIALS.model_dump(), batch_size=PEOPLE)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pairs = []
        for _ in range(ROUNDS + 1):
            alone = cpu_seconds(lambda: [engine([job])[0] for job in jobs])
            pairs.append((alone, cpu_seconds(lambda: engine(jobs))))
    finally:
        torch.set_num_threads(before)
    gain = record(bench_results, "serve_batch_gain", pairs[1:], "8 people together")
    assert gain >= 1.15, pairs


def cpu_seconds(work) -> float:
    """Processor time of drawing every job; a fault would be quick and is none of the figures."""
    gc.collect()
    start = time.process_time()
    results = work()
    spent = time.process_time() - start
    assert len(results) == PEOPLE
    assert all(isinstance(drawn, Drawn) for drawn in results)
    return spent
