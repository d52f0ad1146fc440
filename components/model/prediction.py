"""One module whose forward is a training prediction: what DeepSpeed or DDP wraps, saves and resumes."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from components.model.concepts import PromptTokens, embed_prompts
from components.model.injection import install, installation, set_lora_scale
from components.model.photoverse import PhotoVerseAdapter


class Prediction(NamedTuple):
    """Result of a training prediction.

    Attributes:
        noise_pred: (B, C, h, w) the UNet's prediction (noise or velocity, as the base's scheduler says).
        p_f: (B, m, D) pseudo-words, for Eq. (5).
        visual_values: V_S of every cross-attention, (B, N_f, channels) each, for Eq. (6).
    """

    noise_pred: Tensor
    p_f: Tensor
    visual_values: list[Tensor]


class Condition(NamedTuple):
    """What a prediction hears of prompts and photos; the same at every timestep.

    Attributes:
        prompt_embeds: (B, L, D) p, the text encoder's last hidden state.
        visual_tokens: (B, N_f, D) f; None leaves the visual branch out, as sigma 0 does.
        p_f: (B, m, D) pseudo-words, for Eq. (5).
    """

    prompt_embeds: Tensor
    visual_tokens: Tensor | None
    p_f: Tensor


class PhotoVerseModel(nn.Module):
    """A frozen base with an adapter installed on its UNet.

    Only the adapter's parameters require gradients; gradients reach the text adapters through the frozen
    text encoder. The adapter is registered first, so that its parameters carry the names `adapter.*`
    wherever they are listed.

    Args:
        unet: `UNet2DConditionModel`; the adapter is installed on it if it is not yet.
        text_encoder: `CLIPTextModel`.
        adapter: What is trained.
    """

    def __init__(self, unet: Any, text_encoder: Any, adapter: PhotoVerseAdapter) -> None:
        super().__init__()
        installed = installation(unet)
        if installed is None:
            install(unet, adapter)
        elif installed.adapter is not adapter:
            raise ValueError("the UNet carries another adapter: uninstall it first")
        self.adapter, self.unet, self.text_encoder = adapter, unet, text_encoder
        self.unet.requires_grad_(False).eval()
        self.text_encoder.requires_grad_(False).eval()
        self.adapter.requires_grad_(True)
        self.adapter.loaded_sha256 = None  # from here on the weights change

    def train(self, mode: bool = True) -> "PhotoVerseModel":
        """Sets the mode of the adapter alone: frozen parts stay in eval mode."""
        super().train(mode)
        self.unet.eval()
        self.text_encoder.eval()
        return self

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The adapter's parameters: exactly those that require gradients here."""
        return self.adapter.trainable_parameters()

    def forward(
        self,
        noisy_latents: Tensor,
        timesteps: Tensor,
        input_ids: Tensor,
        word_positions: Tensor,
        features: Tensor,
        gamma: Tensor | float = 1.0,
        sigma: Tensor | float = 1.0,
        alpha: float = 1.0,
        visual_mask: Tensor | None = None,
    ) -> Prediction:
        """Predicts the noise of a batch from photos of its persons.

        Args:
            noisy_latents: (B, C, h, w).
            timesteps: (B,) int64.
            input_ids: (B, L) of `tokenize_prompts(tokenizer, prompts, m)`.
            word_positions: (B, L) of the same.
            features: (B, m, T, D_in) raw features of the identity crops.
            gamma: (B,) weight of the text branch, e.g. drawn by Eq. (4).
            sigma: (B,) weight of the visual branch; sigma 0, gamma 1 and a prompt without S* give the
                unconditional sample of condition dropout.
            alpha: Weight of the LoRA part.
            visual_mask: (B, N_f) bool, optional: which visual tokens count.
        """
        condition = self.condition(input_ids, word_positions, features)
        noise_pred = self.denoise(noisy_latents, timesteps, condition, gamma, sigma, alpha, visual_mask)
        # Eq. (6) reads V_S here, not inside the UNet, where gradient checkpointing would run it twice.
        assert condition.visual_tokens is not None
        values = self.adapter.visual_values(condition.visual_tokens)
        return Prediction(noise_pred, condition.p_f, values)

    def condition(self, input_ids: Tensor, word_positions: Tensor, features: Tensor) -> Condition:
        """Reads prompts and photos; the arguments are those of `forward`."""
        p_f = self.adapter.text_words(features)
        prompt_embeds = embed_prompts(self.text_encoder, PromptTokens(input_ids, word_positions), p_f)
        return Condition(prompt_embeds, self.adapter.visual_tokens(features), p_f)

    def denoise(
        self,
        noisy_latents: Tensor,
        timesteps: Tensor,
        condition: Condition,
        gamma: Tensor | float = 1.0,
        sigma: Tensor | float = 1.0,
        alpha: float = 1.0,
        visual_mask: Tensor | None = None,
    ) -> Tensor:
        """Returns noise_pred (B, C, h, w) under a condition that was read before.

        One that draws a picture over several timesteps reads it once. Not under ZeRO 3, which gathers weights
        in `forward` alone.
        """
        set_lora_scale(self.unet, alpha)
        prediction: Tensor = self.unet(
            noisy_latents,
            timesteps,
            encoder_hidden_states=condition.prompt_embeds.to(noisy_latents.dtype),
            cross_attention_kwargs={
                "visual_tokens": condition.visual_tokens,
                "gamma": gamma,
                "sigma": sigma,
                "visual_mask": visual_mask,
            },
        ).sample
        return prediction
