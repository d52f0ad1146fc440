import numpy as np
import pytest
import torch

from components.model import ModelConfig, load_extractor, pool_tokens


def picture(seed: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_pool_tokens_keeps_cls_and_averages_cells_row_major():
    hidden = torch.randn(2, 17, 3, dtype=torch.float64)
    pooled = pool_tokens(hidden, 2)
    grid = hidden[:, 1:].reshape(2, 4, 4, 3)
    expected = [grid[:, r : r + 2, c : c + 2].mean((1, 2)) for r in (0, 2) for c in (0, 2)]
    torch.testing.assert_close(pooled, torch.stack([hidden[:, 0], *expected], 1))


@pytest.mark.parametrize("tokens", [16, 18])
def test_pool_tokens_refuses_what_is_no_square_map(tokens):
    with pytest.raises(ValueError, match="cannot pool"):
        pool_tokens(torch.zeros(1, tokens, 3), 1)


def test_pool_tokens_refuses_a_grid_finer_than_the_map():
    with pytest.raises(ValueError, match="to a 5 x 5 grid"):
        pool_tokens(torch.zeros(1, 17, 3), 5)


def test_features_are_the_encoders_hidden_states(model_config):
    extractor = load_extractor(ModelConfig(base=model_config.base, feature_layers=(1, -1), patch_grid=2))
    pixels = extractor.preprocess(np.stack([picture(0), picture(1)]))
    features = extractor(pixels)
    assert features.shape == (2, *extractor.shape)
    hidden = extractor.image_encoder(pixels, output_hidden_states=True).hidden_states
    torch.testing.assert_close(features[:, 1], pool_tokens(hidden[-1], 2))
    torch.testing.assert_close(features[:, 0, 0], hidden[1][:, 0])


def test_features_of_a_photo_do_not_depend_on_its_batch(loaded_base):
    extractor = loaded_base.extractor
    images = np.stack([picture(i) for i in range(3)])
    together = extractor(extractor.preprocess(images))
    alone = extractor(extractor.preprocess(images[1:2]))
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)


def test_preprocess_normalises_with_the_encoders_statistics(loaded_base):
    extractor = loaded_base.extractor
    flat = np.broadcast_to(np.array(extractor.fill_rgb_uint8, np.uint8), (1, 64, 64, 3))
    assert extractor.preprocess(np.ascontiguousarray(flat)).abs().max() < 0.01  # the fill colour is the mean


def test_preprocess_resizes_other_sizes(loaded_base):
    assert loaded_base.extractor.preprocess(picture(0, 97)[None]).shape == (1, 3, 64, 64)


@pytest.mark.parametrize("bad", [np.zeros((1, 64, 64, 3), np.float32), np.zeros((64, 64, 3), np.uint8)])
def test_preprocess_refuses_other_arrays(loaded_base, bad):
    with pytest.raises(ValueError, match="uint8"):
        loaded_base.extractor.preprocess(bad)


def test_a_missing_base_is_named():
    with pytest.raises(ValueError, match="no base model part at nowhere"):
        load_extractor(ModelConfig(base="nowhere"))
