"""`photoverse scale`: what 70 k, 1 M and 100 M photos cost on 1, 8 and 64 GPUs, before anybody rents one.

Each stage takes as long as its slowest resource: cores, GPUs or the network. What one photo, sample or
picture needs was counted and measured (`flows/scale_rates.py`, infra/scale.json). What a machine gives is an
assumption that stands in `Hardware`, and can be set.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from components.core import StrictConfig
from flows.environment import PROJECT

RATES_FILE = PROJECT / "infra" / "scale.json"
PHOTOS, GPUS = (70_000, 1_000_000, 100_000_000), (1, 8, 64)
HOUR, GB, TB = 3600.0, 1e9, 1e12


class Rates(StrictConfig):
    """Costs of one sample of Stable Diffusion 2.1 at 512 pixels; see `flows/scale_rates.py`.

    Attributes:
        unet_forward: Operations of one prediction.
        unet_training: Operations of forward and backward through the frozen UNet.
        vae_encode: Operations.
        vae_decode: Operations.
        image_encoder: Operations of CLIP ViT-H.
        unet_parameters: Frozen weights.
        prepare_core_s: Core seconds: decode, find the face, crop, encode as PNG.
        load_core_s: Core seconds to decode a sample's arrays.
        photo_bytes: A photo of 1024 pixels as JPEG.
        pictures_bytes: Crop and target in a shard, which training does not read.
        latents_bytes: The VAE's posterior in a shard.
        pooled_features_bytes: Five layers, CLS and mean of patches.
        all_features_bytes: Five layers, all tokens.
    """

    unet_forward: float = Field(gt=0)
    unet_training: float = Field(gt=0)
    vae_encode: float = Field(gt=0)
    vae_decode: float = Field(gt=0)
    image_encoder: float = Field(gt=0)
    unet_parameters: float = Field(gt=0)
    prepare_core_s: float = Field(gt=0)
    load_core_s: float = Field(gt=0)
    photo_bytes: float = Field(gt=0)
    pictures_bytes: float = Field(gt=0)
    latents_bytes: float = Field(gt=0)
    pooled_features_bytes: float = Field(gt=0)
    all_features_bytes: float = Field(gt=0)


class Hardware(StrictConfig):
    """What a machine gives: assumptions, to be set to what is rented.

    Attributes:
        gpu_flops: Operations a second that a GPU keeps up: 40% of an A100's 312 Tflop/s in bfloat16.
        gpu_memory_gb: Of one GPU.
        gpus_per_node: Nodes share a network card.
        cores_per_gpu: CPU cores that come with a GPU.
        node_bytes_s: Network of a node, both ways: 25 Gbit/s.
        node_disk_tb: Local disk for a node's copy of the shards.
        gpu_hour: Price with its cores, spot.
        store_tb_month: Price of a terabyte in the store.
    """

    gpu_flops: float = Field(default=0.4 * 312e12, gt=0)
    gpu_memory_gb: float = Field(default=80, gt=0)
    gpus_per_node: int = Field(default=8, ge=1)
    cores_per_gpu: int = Field(default=12, ge=1)
    node_bytes_s: float = Field(default=25e9 / 8, gt=0)
    node_disk_tb: float = Field(default=2, gt=0)
    gpu_hour: float = Field(default=1.5, ge=0)
    store_tb_month: float = Field(default=23, ge=0)


class Work(StrictConfig):
    """How much is done; training sees the paper's 60,000 x 64 samples, or each photo twice if that is more.

    Attributes:
        samples: Training samples at least.
        passes: Passes over the photos at least.
        batch: Global batch of up to 64 GPUs.
        trained: Trained weights: visual K and V, LoRA, adapters.
        activations_gb: Of one training sample in bfloat16: half of a float32 step's above its weights.
        face_share: Share of samples that go through the VAE's decoder, forward and back (3 forwards' cost).
        pictures: Pictures of a nightly batch.
        picture_steps: Denoising steps, each with and without the condition.
    """

    samples: int = Field(default=60_000 * 64, ge=1)
    passes: float = Field(default=2, gt=0)
    batch: int = Field(default=64, ge=1)
    trained: float = Field(default=49.4e6, gt=0)
    activations_gb: float = Field(default=1.6, gt=0)
    face_share: float = Field(default=0.1, ge=0, le=1)
    pictures: int = Field(default=10_000, ge=1)
    picture_steps: int = Field(default=50, ge=1)


@dataclass(frozen=True)
class StageTime:
    """How long a stage takes on each resource, in seconds; the longest decides.

    Attributes:
        cores: On the CPU cores.
        gpus: On the GPUs.
        network: Between nodes and to the store.
        traffic: Bytes from and to the store.
    """

    cores: float
    gpus: float
    network: float
    traffic: float

    @property
    def seconds(self) -> float:
        """The stage's time."""
        return max(self.cores, self.gpus, self.network)

    @property
    def bottleneck(self) -> str:
        """What decides it."""
        return max(("cores", "gpus", "network"), key=lambda name: getattr(self, name))


@dataclass(frozen=True)
class Model:
    """The costs of runs, from rates, hardware and work."""

    rates: Rates
    hardware: Hardware = Hardware()
    work: Work = Work()

    def nodes(self, gpus: int) -> int:
        """Returns the number of nodes that hold so many GPUs."""
        return -(-gpus // self.hardware.gpus_per_node)

    def sample_bytes(self, pooled: bool = True) -> float:
        """Returns the bytes that training reads of one sample."""
        r = self.rates
        return r.latents_bytes + (r.pooled_features_bytes if pooled else r.all_features_bytes)

    def shard_bytes(self, photos: int, pooled: bool = True) -> float:
        """Returns the size of a set of shards."""
        return photos * (self.sample_bytes(pooled) + self.rates.pictures_bytes)

    def prepare(self, photos: int, gpus: int) -> StageTime:
        """Photos to shards."""
        r, h = self.rates, self.hardware
        traffic = photos * r.photo_bytes + self.shard_bytes(photos)
        return StageTime(
            cores=photos * r.prepare_core_s / (gpus * h.cores_per_gpu),
            gpus=photos * (r.vae_encode + r.image_encoder) / (gpus * h.gpu_flops),
            network=traffic / (self.nodes(gpus) * h.node_bytes_s),
            traffic=traffic,
        )

    def samples(self, photos: int) -> float:
        """Returns the training samples of a run."""
        return max(self.work.samples, self.work.passes * photos)

    def train(self, photos: int, gpus: int, pooled: bool = True) -> StageTime:
        """Shards to an adapter; gradients go between the nodes once a step, after the backward pass."""
        r, h, w = self.rates, self.hardware, self.work
        samples, nodes = self.samples(photos), self.nodes(gpus)
        flops = samples * (r.unet_training + w.face_share * 3 * r.vae_decode)
        steps = samples / w.batch
        gradients = steps * 2 * 2 * w.trained / h.node_bytes_s if nodes > 1 else 0.0
        read = self.sample_bytes(pooled)
        # a node reads what it has disk for once, the rest in every pass
        share = min(1.0, nodes * h.node_disk_tb * TB / (photos * read))
        traffic = read * (photos * share + samples * (1 - share))
        return StageTime(
            cores=samples * r.load_core_s / (gpus * h.cores_per_gpu),
            gpus=flops / (gpus * h.gpu_flops) + gradients,
            network=traffic / (nodes * h.node_bytes_s),
            traffic=traffic,
        )

    def personalize(self, gpus: int) -> StageTime:
        """A nightly batch."""
        r, h, w = self.rates, self.hardware, self.work
        flops = w.pictures * (2 * w.picture_steps * r.unet_forward + r.vae_decode)
        traffic = w.pictures * r.pictures_bytes / 2
        network = traffic / (self.nodes(gpus) * h.node_bytes_s)
        return StageTime(0.0, flops / (gpus * h.gpu_flops), network, traffic)

    def memory_gb(self, gpus: int, zero_stage: int, trained: float | None = None) -> float:
        """Returns the memory of one GPU in training: 2 bytes a frozen weight, 16 bytes a trained one.

        Of those 16, ZeRO 1 deals out the optimizer's 12, ZeRO 2 also the gradients' 2, ZeRO 3 all and the
        frozen weights too.
        """
        trained = self.work.trained if trained is None else trained
        whole = {0: 16.0, 1: 4.0, 2: 2.0, 3: 0.0}[zero_stage]
        mine = trained * (whole + (16.0 - whole) / gpus)
        frozen = 2 * (self.rates.unet_parameters + 340e6 + 84e6)  # text encoder and VAE beside the UNet
        micro = max(1, min(8, self.work.batch // gpus))
        parts = mine + (frozen / gpus if zero_stage == 3 else frozen)
        return parts / GB + micro * self.work.activations_gb

    def money(self, seconds: float, gpus: int) -> float:
        """Returns the price of the GPUs."""
        return seconds / HOUR * gpus * self.hardware.gpu_hour

    def _most_trained(self, gpus: int, zero_stage: int) -> int:
        """Returns the trained weights, in millions, that still fit a GPU."""
        fixed = self.memory_gb(gpus, zero_stage, 0.0)
        each = self.memory_gb(gpus, zero_stage, 1e6) - fixed
        return int((self.hardware.gpu_memory_gb - fixed) / each)

    def turning_points(self) -> dict[str, str]:
        """Returns, for each choice, where it must change."""
        r, h, w = self.rates, self.hardware, self.work
        disk = h.node_disk_tb * TB
        rate, loader = h.gpu_flops / r.unet_training, 1 / r.load_core_s
        most = [self._most_trained(8, stage) for stage in (0, 1, 2)]
        read, read_all = self.sample_bytes(), self.sample_bytes(False)
        return {
            "pooled features": (
                f"all tokens are {r.all_features_bytes / r.pooled_features_bytes:.0f} times larger: a node's "
                f"disk of {h.node_disk_tb:g} TB holds {disk / read:,.0f} pooled samples or "
                f"{disk / read_all:,.0f} with all tokens; past that every pass reads the store"
            ),
            "ZeRO stage": (
                f"8 GPUs of {h.gpu_memory_gb:g} GB: stage 0 up to {most[0]:,} M trained weights, 1 up to "
                f"{most[1]:,} M, 2 up to {most[2]:,} M, beyond that 3; ours are {w.trained / 1e6:.0f} M"
            ),
            "loader": (
                f"a core decodes {loader:,.0f} samples a second, a GPU trains on {rate:.0f}: one core feeds "
                f"{loader / rate:.0f} GPUs; 8 GPUs read {8 * rate * read / 1e6:.0f} MB/s pooled and "
                f"{8 * rate * read_all / 1e6:,.0f} with all tokens, of {h.node_bytes_s / 1e6:,.0f} that a "
                "node's network gives"
            ),
        }


def load_rates(path: Path = RATES_FILE) -> Rates:
    """Reads what was measured."""
    return Rates.parse(json.loads(path.read_text(encoding="utf-8")), source=str(path))


class Assumptions(StrictConfig):
    """What may be set: the machines and the work."""

    hardware: Hardware = Hardware()
    work: Work = Work()


def forecast(settings: Mapping[str, Any] | None = None) -> Model:
    """Returns the model with what was measured and the given assumptions."""
    given = Assumptions.parse(dict(settings or {}), source="assumptions")
    return Model(load_rates(), given.hardware, given.work)


def table(model: Model, photos: Sequence[int] = PHOTOS, gpus: Sequence[int] = GPUS) -> str:
    """Returns the forecast in Markdown."""
    lines = [
        "| photos | GPUs | prepare | train | price | from and to the store | shards | memory of a GPU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for count in photos:
        for number in gpus:
            prepare, train = model.prepare(count, number), model.train(count, number)
            price = model.money(prepare.seconds + train.seconds, number)
            lines.append(
                f"| {count:,} | {number} | {_said(prepare)} | {_said(train)} | ${price:,.0f} "
                f"| {(prepare.traffic + train.traffic) / TB:,.2f} TB "
                f"| {model.shard_bytes(count) / TB:,.2f} TB | {model.memory_gb(number, 1):.1f} GB |"
            )
    lines += ["", "| choice | where it must change |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in model.turning_points().items()]
    batch = [f"{_said(model.personalize(number))} on {number}" for number in gpus]
    lines += ["", f"A nightly batch of {model.work.pictures:,} pictures: {', '.join(batch)} GPUs."]
    return "\n".join(lines)


def _said(stage: StageTime) -> str:
    hours = stage.seconds / HOUR
    time = f"{hours:,.0f} h" if hours >= 10 else f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
    return f"{time} ({stage.bottleneck})"
