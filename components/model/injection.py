"""Putting an adapter into a UNet and taking it out again, beside whatever else the user has put there.

`install` sets attention processors and adds a LoRA named "photoverse" through peft, whose weights are the
adapter's own
parameters: training the one trains the other. `uninstall` gives the UNet back as it was, bit for bit.
"""

import warnings
from typing import Any

from torch import nn

from components.model.attention import DeafProcessor, DualAttnProcessor
from components.model.layers import CrossAttention, cross_attentions, lora_layers
from components.model.photoverse import PhotoVerseAdapter

LORA_NAME = "photoverse"


class Installation:
    """What `install` did to a UNet, kept on it so that it can be checked, mended and undone.

    Attributes:
        adapter: What was installed.
        attention: The UNet's attention layers by name.
        processors: Their processors before.
        lora: The peft layers that hold our LoRA, each with its resolution level.
        alpha: As set last.
    """

    def __init__(self, adapter: PhotoVerseAdapter, attention: dict[str, Any]) -> None:
        self.adapter, self.attention = adapter, attention
        self.alpha: float | tuple[float, ...] = 1.0
        self.processors = {name: module.processor for name, module in attention.items()}
        self.lora: list[tuple[Any, int]] = []


def installation(unet: Any) -> Installation | None:
    """Returns what is installed on the UNet, or None."""
    return unet.__dict__.get("_photoverse")


def install(unet: Any, adapter: PhotoVerseAdapter) -> None:
    """Installs the adapter on a UNet, with alpha = 1.

    Raises:
        ValueError: The UNet's layers are not those that the adapter was made for, it has an adapter
            already, or its cross-attention belongs to an IP-Adapter.
    """
    unet = getattr(unet, "_orig_mod", unet)
    if installation(unet) is not None:
        raise ValueError("this UNet has a PhotoVerse adapter already: uninstall it first")
    _check_fit(unet, adapter)
    adapter.to(device=unet.device)
    installed = Installation(adapter, _attention_layers(unet))
    if any("IPAdapter" in type(processor).__name__ for processor in installed.processors.values()):
        raise ValueError("this UNet has an IP-Adapter: unload it first (`pipe.unload_ip_adapter()`)")
    unet.__dict__["_photoverse"] = installed
    mend(unet)


def mend(unet: Any) -> None:
    """Puts back what other calls have taken away since `install`, and changes nothing if all is well.

    `enable_attention_slicing`, `set_adapters`, `unload_lora_weights` and their like replace every attention
    processor, make another LoRA the only active one, or remove them all; without this the person would
    silently vanish from the pictures.
    """
    unet = getattr(unet, "_orig_mod", unet)
    installed = _installed(unet)
    visual = {layer.name: layer for layer in installed.adapter.attentions}
    for name, module in installed.attention.items():
        if not isinstance(module.processor, DualAttnProcessor | DeafProcessor):
            installed.processors[name] = module.processor
            module.set_processor(_processor(installed.adapter, visual.get(name), module.processor))
    if LORA_NAME not in getattr(unet, "peft_config", {}):
        installed.lora = _add_lora(unet, installed.adapter)
        set_lora_scale(unet, installed.alpha)
    active = unet.active_adapters()
    if LORA_NAME not in active:
        _activate(unet, [*active, LORA_NAME])
        set_lora_scale(unet, installed.alpha)


def uninstall(unet: Any) -> None:
    """Takes the adapter out; processors and LoRA layers of the user's own stay."""
    unet = getattr(unet, "_orig_mod", unet)
    installed = _installed(unet)
    for name, module in installed.attention.items():
        if isinstance(module.processor, DualAttnProcessor | DeafProcessor):
            module.set_processor(installed.processors[name])
    if LORA_NAME in getattr(unet, "peft_config", {}):
        _remove_lora(unet)
    del unet.__dict__["_photoverse"]


def set_lora_scale(unet: Any, alpha: float | tuple[float, ...]) -> None:
    """Sets alpha, the weight of the LoRA part (PhotoVerse Sec. 3.3); other LoRA keep theirs.

    Args:
        unet: With an adapter installed.
        alpha: One for all layers, or one a resolution level, finest first.
    """
    installed = _installed(getattr(unet, "_orig_mod", unet))
    installed.alpha = alpha
    for module, level in installed.lora:
        module.set_scale(LORA_NAME, alpha[level] if isinstance(alpha, tuple) else alpha)


def _installed(unet: Any) -> Installation:
    installed = installation(unet)
    if installed is None:
        raise ValueError("this UNet has no PhotoVerse adapter: call install(unet, adapter) first")
    return installed


def _check_fit(unet: nn.Module, adapter: PhotoVerseAdapter) -> None:
    for kind, ours, theirs in (
        ("cross-attention", adapter.attentions, cross_attentions(unet)),
        ("LoRA", adapter.lora_layers, lora_layers(unet, adapter.config)),
    ):
        fitting, found = ({layer.name: layer for layer in layers} for layers in (ours, theirs))
        odd = sorted(name for name in fitting.keys() | found if fitting.get(name) != found.get(name))
        if odd:
            raise ValueError(
                f"the adapter was made for another UNet: {len(odd)} {kind} layers differ, "
                f"first {odd[0]}: adapter {fitting.get(odd[0])}, UNet {found.get(odd[0])}"
            )


def _attention_layers(unet: nn.Module) -> dict[str, Any]:
    return {
        name: module for name, module in unet.named_modules() if hasattr(module, "set_processor") and name
    }


def _processor(adapter: PhotoVerseAdapter, layer: CrossAttention | None, original: Any) -> Any:
    if layer is None:
        return DeafProcessor(original)
    visual = adapter.visual_kv[layer.key]
    return DualAttnProcessor(visual.to_k, visual.to_v, layer.level)  # type: ignore[arg-type]


def _lora_layers(unet: nn.Module) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in unet.modules() if isinstance(module, BaseTunerLayer)]


def _add_lora(unet: Any, adapter: PhotoVerseAdapter) -> list[tuple[Any, int]]:
    """Adds peft layers whose weights are the adapter's parameters; returns those layers and their levels."""
    from peft import LoraConfig

    names = [layer.name for layer in adapter.lora_layers]
    rank = adapter.config.lora_rank
    before = unet.active_adapters() if getattr(unet, "_hf_peft_config_loaded", False) else []
    flags = {id(p): p.requires_grad for p in unet.parameters()}
    with warnings.catch_warnings():  # peft warns of a second LoRA; living beside another one is what we want
        warnings.filterwarnings("ignore", "Already found a `peft_config`")
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=names), adapter_name=LORA_NAME)
    added = []
    for layer, dw in adapter.low_ranks():
        module: Any = unet.get_submodule(layer.name)
        added.append((module, layer.level))
        module.lora_A[LORA_NAME].weight, module.lora_B[LORA_NAME].weight = dw.a, dw.b
    for parameter in unet.parameters():  # peft froze and thawed what is not ours to freeze or thaw
        parameter.requires_grad_(flags.get(id(parameter), parameter.requires_grad))
    _activate(unet, [*before, LORA_NAME])
    return added


def _activate(unet: nn.Module, names: list[str]) -> None:
    """Makes these LoRA the active ones without touching which parameters require gradients."""
    for module in _lora_layers(unet):
        flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
        module.set_adapter(names)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _remove_lora(unet: Any) -> None:
    """Removes our LoRA, and peft's wrappers where no other LoRA is left in them."""
    active = [name for name in unet.active_adapters() if name != LORA_NAME]
    flags = {id(parameter): parameter.requires_grad for parameter in unet.parameters()}
    unet.delete_adapters(LORA_NAME)
    wrappers = set(_lora_layers(unet))
    for name, module in list(unet.named_modules()):
        if module in wrappers and not module.lora_A:
            parent, _, child = name.rpartition(".")
            setattr(unet.get_submodule(parent), child, module.get_base_layer())
    if not getattr(unet, "peft_config", None):
        unet._hf_peft_config_loaded = False
        vars(unet).pop("peft_config", None)
    elif active:
        _activate(unet, active)
    for parameter in unet.parameters():
        parameter.requires_grad_(flags[id(parameter)])
