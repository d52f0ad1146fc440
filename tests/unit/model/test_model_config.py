import pytest

from components.model import ModelConfig


@pytest.mark.parametrize(
    ("depth", "layers"),
    [(24, (4, 8, 12, 16, 24)), (32, (5, 11, 16, 21, 32)), (6, (1, 2, 3, 4, 6)), (2, (1, 2))],
)
def test_default_layers_are_elites_fractions_of_any_depth(depth, layers):
    assert ModelConfig().layers(depth) == layers


def test_negative_layers_count_from_the_end_and_order_is_shallow_first():
    assert ModelConfig(feature_layers=(-1, 2, 0)).layers(6) == (0, 2, 6)


@pytest.mark.parametrize("layers", [(7,), (-8,), (6, -1)])
def test_layers_outside_the_encoder_or_named_twice_are_refused(layers):
    with pytest.raises(ValueError, match="do not fit an image encoder of 6 layers"):
        ModelConfig(feature_layers=layers).layers(6)


@pytest.mark.parametrize(
    "values",
    [{"patch_grid": 0}, {"lora_rank": 0}, {"feature_layers": []}, {"visual_tokens": "some"}, {"gama": 1}],
)
def test_bad_values_are_refused_with_the_key(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        ModelConfig.parse(values, source="a test")
