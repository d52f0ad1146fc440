import hashlib

import pytest
import torch

from components.model import PhotoVerseModel, tokenize_prompts


def batch(base, adapter, sigma=(1.0, 1.0), gamma=(1.0, 1.0)):
    generator = torch.Generator().manual_seed(0)
    tokens = tokenize_prompts(base.tokenizer, ["a photo of S*", "S* smiling"], adapter.m)
    return {
        "noisy_latents": torch.randn(2, 8, 16, 16, generator=generator),
        "timesteps": torch.tensor([3, 700]),
        "input_ids": tokens.input_ids,
        "word_positions": tokens.word_positions,
        "features": torch.randn(2, *base.extractor.shape, generator=generator),
        "gamma": torch.tensor(gamma),
        "sigma": torch.tensor(sigma),
    }


def frozen_hash(model):
    trained = {id(p) for p in model.adapter.parameters()}
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if id(parameter) not in trained:
            digest.update(name.encode() + parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def test_gradients_reach_exactly_the_listed_parameters(base, adapter):
    model = PhotoVerseModel(base.unet, base.text_encoder, adapter)
    prediction = model(**batch(base, adapter))
    loss = prediction.noise_pred.square().mean() + prediction.p_f.abs().mean()
    (loss + sum(value.abs().mean() for value in prediction.visual_values)).backward()
    listed = {id(p) for p in model.trainable_parameters()}
    got = {id(p) for p in model.parameters() if p.grad is not None}
    assert got == listed
    assert listed == {id(p) for p in model.parameters() if p.requires_grad}
    silent = [name for name, p in adapter.named_parameters() if p.grad.abs().max() == 0]
    assert silent == []


def test_a_step_changes_what_is_trained_and_nothing_frozen(base, adapter):
    model = PhotoVerseModel(base.unet, base.text_encoder, adapter).train()
    before, weights = frozen_hash(model), adapter.lora[next(iter(adapter.lora))].a.clone()
    model(**batch(base, adapter)).noise_pred.square().mean().backward()
    torch.optim.AdamW(model.trainable_parameters(), lr=1e-2).step()
    assert frozen_hash(model) == before
    assert not torch.equal(adapter.lora[next(iter(adapter.lora))].a, weights)


def test_trained_parameters_are_named_after_the_adapter(base, adapter):
    model = PhotoVerseModel(base.unet, base.text_encoder, adapter)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert names
    assert all(name.startswith("adapter.") for name in names)


def test_frozen_parts_stay_in_eval_mode(base, adapter):
    PhotoVerseModel(base.unet, base.text_encoder, adapter).train()
    assert adapter.training
    assert not base.unet.training
    assert not base.text_encoder.training


def test_visual_values_are_v_s_of_every_layer(base, adapter):
    model = PhotoVerseModel(base.unet, base.text_encoder, adapter)
    inputs = batch(base, adapter)
    prediction = model(**inputs)
    tokens = adapter.visual_tokens(inputs["features"])
    assert len(prediction.visual_values) == len(adapter.attentions)
    expected = [adapter.visual_kv[layer.key].to_v(tokens) for layer in adapter.attentions]
    by_shape = sorted(expected, key=lambda v: v.sum().item())
    for ours, theirs in zip(
        sorted(prediction.visual_values, key=lambda v: v.sum().item()), by_shape, strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_sample_depends_on_its_own_photo_alone(base, adapter):
    model = PhotoVerseModel(base.unet, base.text_encoder, adapter)
    inputs = batch(base, adapter)
    first = model(**inputs).noise_pred
    inputs["features"] = torch.stack([inputs["features"][0], torch.randn(*base.extractor.shape)])
    second = model(**inputs).noise_pred
    torch.testing.assert_close(first[0], second[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(first[1], second[1], atol=1e-4)


def test_a_condition_read_once_gives_what_the_whole_does_and_none_is_sigma_0(base, adapter):
    model = PhotoVerseModel(base.unet, base.text_encoder, adapter)
    inputs = batch(base, adapter)
    condition = model.condition(*(inputs[name] for name in ("input_ids", "word_positions", "features")))
    place = inputs["noisy_latents"], inputs["timesteps"]
    assert torch.equal(model.denoise(*place, condition), model(**inputs).noise_pred)
    words_alone = model.denoise(*place, condition._replace(visual_tokens=None))
    torch.testing.assert_close(words_alone, model.denoise(*place, condition, sigma=torch.zeros(2)))
    assert not torch.allclose(words_alone, model(**inputs).noise_pred, atol=1e-4)


def test_dropped_condition_hides_the_person(base, adapter):
    model = PhotoVerseModel(base.unet, base.text_encoder, adapter)
    inputs = batch(base, adapter, sigma=(0.0, 0.0))
    nobody = tokenize_prompts(base.tokenizer, ["", ""], adapter.m)
    inputs |= {"input_ids": nobody.input_ids, "word_positions": nobody.word_positions}
    first = model(**inputs).noise_pred
    inputs["features"] = torch.randn_like(inputs["features"])
    assert torch.equal(model(**inputs).noise_pred, first)


def test_another_adapter_on_the_unet_is_an_error(base, adapter):
    PhotoVerseModel(base.unet, base.text_encoder, adapter)
    with pytest.raises(ValueError, match="another adapter"):
        PhotoVerseModel(
            base.unet,
            base.text_encoder,
            type(adapter).create(base.unet, base.text_encoder, base.image_encoder, adapter.config),
        )
