"""Settings of training; defaults are the paper's recipe where it states one (PhotoVerse, experiments)."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from components.core import StrictConfig
from components.shards import ReaderConfig


class FusionConfig(StrictConfig):
    """Random fusion of the two branches in training (PhotoVerse Eq. 4).

    Attributes:
        r1: A draw u < r1 trains the text branch alone.
        r2: A draw u > r2 trains the visual branch alone; in between, both.
        text_factor: gamma when the text branch is alone.
        visual_factor: sigma when the visual branch is alone.
        draw: Each sample its own draw, or one for the whole global batch. The paper does not say; per
            sample gives every step all three cases.
        warmup_steps: Steps with the plain sum (gamma = sigma = 1) before random fusion starts. Not in the
            paper: with random fusion from step 0 a small model learned nothing in 1,000 steps, with the
            plain sum in 150.
    """

    r1: float = Field(default=1 / 3, ge=0, le=1)
    r2: float = Field(default=2 / 3, ge=0, le=1)
    text_factor: float = Field(default=2.0, ge=0)
    visual_factor: float = Field(default=2.0, ge=0)
    draw: Literal["sample", "batch"] = "sample"
    warmup_steps: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.r1 > self.r2:
            raise ValueError(f"r1 must not exceed r2, found r1 = {self.r1}, r2 = {self.r2}")
        return self


class LossConfig(StrictConfig):
    """Weights of the losses (PhotoVerse Eq. 8) and what shapes the diffusion term.

    Attributes:
        lambda_text: Weight of mean|p_f| (Eq. 5).
        lambda_visual: Weight of mean|V_S| (Eq. 6).
        min_snr_gamma: Clamps the loss weight of easy timesteps (Min-SNR); None weighs all alike, as the
            paper.
        face_weight: How much more the middle of the target's face counts in the diffusion term than a place
            far from it; 0 counts all alike, as the paper. In a small frame a smile is 4 latents of 256, and
            costs too little to be learned from words.
        mouth_weight: The same of its mouth, added to the face's.
        noise_offset: Strength of noise that is constant over a latent channel; 0 is the paper's.
        timestep_sampling: "uniform" draws each sample's timestep on its own; "stratified" spreads the
            global batch evenly over the schedule, which lowers the variance of the loss and keeps its mean.
    """

    lambda_text: float = Field(default=0.01, ge=0)
    lambda_visual: float = Field(default=0.001, ge=0)
    min_snr_gamma: float | None = Field(default=None, gt=0)
    face_weight: float = Field(default=0.0, ge=0)
    mouth_weight: float = Field(default=0.0, ge=0)
    noise_offset: float = Field(default=0.0, ge=0, le=1)
    timestep_sampling: Literal["uniform", "stratified"] = "uniform"


class FaceLossConfig(StrictConfig):
    """The identity loss: what it weighs and how much of each step it may cost.

    By default x' is the one-step estimate of x_0 from the prediction. At high noise that estimate is an
    average face, whose identity means little, so the term is kept to low timesteps.

    Attributes:
        lambda_face: Weight of 1 - cos(ArcFace(x), ArcFace(x')). 0 switches the term off and loads no network.
        fraction: At most this share of the global batch is decoded in a step.
        max_timestep: Samples above it, as a share of the schedule's length, take no part.
        every_n_steps: The term is computed each n-th step only; its weight is not raised for that.
        start_step: First step with the term.
        x0_steps: Denoising steps from t to x'. 1 is the one-step estimate; n > 1 takes n - 1 DDIM steps
            first, without gradients, and estimates x_0 from the last. The paper says "the denoised image"
            and no more; 1 is the default because it costs no further UNet pass. More steps give a truer
            face (PuLID measured a higher similarity, and a lower obedience to prompts).
        decoded: "picture" decodes all latents of a sample; "face" only a square window of them around the
            landmarks, `face_window` of the side, which costs its share of the picture's area.
        face_window: Side of that window, as a share of the latents' side.
        tiny_decoder: Folder (or hub id) of a diffusers `AutoencoderTiny` that decodes in the VAE's stead: a
            fraction of the cost, slightly other pictures. It must belong to the base's latent space.
    """

    lambda_face: float = Field(default=0.01, ge=0)
    fraction: float = Field(default=0.25, gt=0, le=1)
    max_timestep: float = Field(default=0.4, gt=0, le=1)
    every_n_steps: int = Field(default=1, ge=1)
    start_step: int = Field(default=0, ge=0)
    x0_steps: int = Field(default=1, ge=1, le=16)
    decoded: Literal["picture", "face"] = "picture"
    face_window: float = Field(default=0.5, gt=0, le=1)
    tiny_decoder: str | None = None


class SampledFaceConfig(StrictConfig):
    """The identity loss on pictures as they are drawn: from noise, with guidance, through every step.

    Not in the paper, whose x' starts from the noisy photo and so is told by it who is meant. Here x' starts
    from noise alone, in a pose of its own, and gradients reach the first steps, which decide hair, skin and
    the shape of a face. PuLID (arXiv 2404.16022) draws four steps for its identity loss too.

    Attributes:
        lambda_sampled: Weight of 1 - cos(ArcFace(x), ArcFace(x')). 0 switches the term off.
        sigma: Weight of the visual branch at each DDIM step; there are as many steps as values. Use what the
            pictures will be drawn with: at guidance 1 the term raised the identity at guidance 1, and lowered
            it at 3.
        guidance_scale: Guidance of these pictures. The unconditional prediction carries no gradients.
        hold_gradients: A picture's gradient does not grow on its way back through the steps.
        every_n_samples: Each n-th sample of the global batch is drawn; its cost is that of as many passes as
            there are steps, twice with guidance.
        every_n_steps: The term is computed each n-th step only; its weight is not raised for that.
        start_step: First step with the term.
    """

    lambda_sampled: float = Field(default=0.0, ge=0)
    sigma: tuple[float, ...] = Field(default=(1.0, 1.0, 1.0, 1.0), min_length=1, max_length=50)
    guidance_scale: float = Field(default=2.0, ge=1)
    hold_gradients: bool = True
    every_n_samples: int = Field(default=4, ge=1)
    every_n_steps: int = Field(default=1, ge=1)
    start_step: int = Field(default=0, ge=0)

    def due(self, step: int) -> bool:
        """Whether optimizer step `step` (from 0) has the term."""
        return self.lambda_sampled > 0 and step >= self.start_step and step % self.every_n_steps == 0


class OptimizerConfig(StrictConfig):
    """AdamW and its learning rate.

    Attributes:
        learning_rate: Peak rate.
        schedule: Shape after the warm-up; "cosine" and "linear" fall to `final_share` of the peak at the
            last step.
        warmup_steps: Steps of linear rise from 0.
        gradient_clipping: Largest global gradient norm; 0 clips nothing.
        kind: "adamw", or "adamw8bit" of bitsandbytes (an extra package), whose moments take a quarter of the
            memory. Not with ZeRO 3; and a checkpoint of it with ZeRO 1 or 2, or in half precision, fits the
            same number of workers only.
    """

    learning_rate: float = Field(default=1e-4, gt=0)
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    final_share: float = Field(default=0.0, ge=0, le=1)
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    gradient_clipping: float = Field(default=1.0, ge=0)
    kind: Literal["adamw", "adamw8bit"] = "adamw"


class ValidationConfig(StrictConfig):
    """`reference_gain` on people not trained on, the grid of sample pictures and the identity in them.

    During the run both look at validation people; held-out people are left to the end and to evaluation, so
    that nothing is chosen by them.

    Attributes:
        every: Measure each n steps; None measures at the end alone.
        people: At most so many held-out people; None takes all.
        timesteps: Number of timesteps, spread evenly over the schedule, at which each photo is measured.
        batch_size: Samples in one forward pass of a worker.
        bootstrap: Resamples of people behind the 95% interval.
        sample_every: Draw the grid each n steps and measure the identity similarity of its pictures, by
            which the best checkpoint is kept; None draws it at the end alone.
        sample_people: Rows of the grid; 0 draws none.
        sample_steps: DDIM steps of a sample picture.
        guidance_scale: Guidance of the sample pictures.
    """

    every: int | None = Field(default=None, ge=1)
    people: int | None = Field(default=None, ge=2)
    timesteps: int = Field(default=8, ge=1)
    batch_size: int = Field(default=32, ge=1)
    bootstrap: int = Field(default=2000, ge=100)
    sample_every: int | None = Field(default=None, ge=1)
    sample_people: int = Field(default=8, ge=0)
    sample_steps: int = Field(default=20, ge=1)
    guidance_scale: float = Field(default=2.0, ge=0)


class DivergenceConfig(StrictConfig):
    """What to do when the loss is no number, or explodes.

    Attributes:
        explosion_factor: A loss above so many times its running mean counts as exploded; None looks only
            for what is no number.
        max_returns: Times that a run may go back to its last checkpoint with a lower rate; 0 stops at once.
        rate_factor: What the learning rate is multiplied with at each return.
    """

    explosion_factor: float | None = Field(default=20.0, gt=1)
    max_returns: int = Field(default=0, ge=0)
    rate_factor: float = Field(default=0.5, gt=0, lt=1)


class TrainConfig(StrictConfig):
    """One training run.

    Attributes:
        steps: Optimizer steps.
        global_batch_size: Samples of a step, whatever the number of workers.
        micro_batch_size: Samples a worker takes at once; None takes its whole part, fewer accumulates
            gradients.
        num_workers: Ray Train workers, one process each.
        cpus_per_worker: CPUs reserved for a worker; it runs as many threads.
        use_gpu: One GPU a worker; None takes GPUs if `runtime.device` is not "cpu" and the cluster has any.
        zero_stage: DeepSpeed ZeRO stage.
        offload: Keeps optimizer state in the CPU's memory (ZeRO 1 to 3), or weights too (ZeRO 3).
        start_from: Adapter file (.safetensors) whose weights the run begins with, such as that of an earlier
            run; it must belong to the same base and switches, but its LoRA may be on fewer layers. None
            begins untrained.
        prompt: Training prompt; must hold S* once.
        photo_prompts: Share of samples that are trained with their photo's own prompt (`prompt` of its
            metadata, such as "a photo of S*, smiling, on a red background"), where it has one. Not in the
            paper, which trains "a photo of S*" alone: then background and expression can come from the
            reference only, and later words do not move them.
        pairs: Share of samples whose features come from another photo of the person (the next in its shard;
            who has none stays with his own). Not in the paper, which gives back the very photo: then all
            that is seen beside the face, its pose and its smile is told by the photo, and words are not
            needed (PhotoMaker, Table 2b, measured the same).
        condition_dropout: Share of samples that see neither S* nor the visual branch but the empty prompt,
            for classifier-free guidance. The paper does not say; 0 leaves the empty prompt to the base
            model.
        alpha: Weight of the LoRA part in training.
        ema_decay: Decay of an average of the trained weights, which is what is saved at the end; None keeps
            none.
        export_dtype: What adapter files are written in; training and loading are in float32.
        gradient_checkpointing: Recompute the UNet's activations in the backward pass to save memory.
        checkpoint_every: Steps between checkpoints; one more is made at the end.
        keep_checkpoints: The last so many are kept.
        max_failures: Restarts from the last checkpoint that a run may need before it fails.
        log_every: Steps between rows of the tracked metrics.
        damaged_share: Shards that turn out damaged or missing are left out, and counted in the log, up to
            this share of the training samples; 0 stops at the first.
        price_per_worker_hour: Puts the run's cost so far into the log, in whatever currency it is given.
        assumed_samples_per_second: Of one worker, for `photoverse plan` where nothing has been measured.
    """

    # What decides where and how fast a run goes, not what it learns: a run may go on with other values. Of
    # start_from the contents count (start.py), not the place.
    free_settings: ClassVar[frozenset[str]] = frozenset(
        {"num_workers", "cpus_per_worker", "micro_batch_size", "use_gpu", "zero_stage", "offload",
         "gradient_checkpointing", "checkpoint_every", "keep_checkpoints", "max_failures", "damaged_share",
         "price_per_worker_hour", "assumed_samples_per_second", "start_from", "export_dtype"}
    )  # fmt: skip

    steps: int = Field(default=60_000, ge=1)
    global_batch_size: int = Field(default=64, ge=1)
    micro_batch_size: int | None = Field(default=None, ge=1)
    num_workers: int = Field(default=1, ge=1)
    cpus_per_worker: int = Field(default=1, ge=1)
    use_gpu: bool | None = None
    zero_stage: Literal[0, 1, 2, 3] = 0
    offload: Literal["none", "optimizer", "optimizer_and_weights"] = "none"
    start_from: str | None = None
    prompt: str = "a photo of S*"
    photo_prompts: float = Field(default=0.0, ge=0, le=1)
    pairs: float = Field(default=0.0, ge=0, le=1)
    condition_dropout: float = Field(default=0.0, ge=0, lt=1)
    alpha: float = Field(default=1.0, ge=0)
    optimizer: OptimizerConfig = OptimizerConfig()
    fusion: FusionConfig = FusionConfig()
    losses: LossConfig = LossConfig()
    face_loss: FaceLossConfig = FaceLossConfig()
    sampled_face: SampledFaceConfig = SampledFaceConfig()
    validation: ValidationConfig = ValidationConfig()
    divergence: DivergenceConfig = DivergenceConfig()
    reader: ReaderConfig = ReaderConfig()
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    export_dtype: Literal["float32", "float16"] = "float32"
    gradient_checkpointing: bool = False
    checkpoint_every: int = Field(default=1000, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    max_failures: int = Field(default=3, ge=0)
    log_every: int = Field(default=10, ge=1)
    damaged_share: float = Field(default=0.0, ge=0, lt=1)
    price_per_worker_hour: float | None = Field(default=None, ge=0)
    assumed_samples_per_second: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.prompt.split().count("S*") != 1:
            raise ValueError(f"prompt must hold S* once, as a word of its own; found {self.prompt!r}")
        if self.global_batch_size % self.num_workers:
            raise ValueError(
                f"global_batch_size must be a multiple of num_workers, found {self.global_batch_size} "
                f"and {self.num_workers}"
            )
        self.micro_batch_size_of(self.num_workers)
        if self.ema_decay is not None and self.zero_stage == 3:
            raise ValueError("ema_decay needs whole weights on each worker: use zero_stage 0, 1 or 2 with it")
        needed = {"none": 0, "optimizer": 1, "optimizer_and_weights": 3}[self.offload]
        if self.zero_stage < needed:
            raise ValueError(
                f"offload {self.offload!r} needs zero_stage {needed} or more, found {self.zero_stage}"
            )
        if self.sampled_face.lambda_sampled and self.zero_stage == 3:
            raise ValueError("sampled_face draws on some workers only: use zero_stage 0, 1 or 2 with it")
        if self.optimizer.kind == "adamw8bit" and self.zero_stage == 3:
            raise ValueError("optimizer.kind 'adamw8bit' works with zero_stage 0, 1 and 2, found 3")
        return self

    @property
    def looks_at_faces(self) -> bool:
        """Whether a term of the loss needs the identity network."""
        return self.face_loss.lambda_face > 0 or self.sampled_face.lambda_sampled > 0

    def micro_batch_size_of(self, world_size: int) -> int:
        """Returns the samples in one forward pass of one of `world_size` workers.

        Raises:
            ValueError: The global batch cannot be dealt out evenly.
        """
        part, rest = divmod(self.global_batch_size, world_size)
        micro = part if self.micro_batch_size is None else self.micro_batch_size
        if rest or part % micro:
            raise ValueError(
                f"micro_batch_size must divide each worker's part of the batch ({self.global_batch_size} "
                f"over {world_size} workers), found {self.micro_batch_size}"
            )
        return micro

    def accumulation_steps_of(self, world_size: int) -> int:
        """Returns the forward passes that one optimizer step adds up."""
        return self.global_batch_size // world_size // self.micro_batch_size_of(world_size)
