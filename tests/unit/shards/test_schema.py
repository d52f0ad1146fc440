from collections.abc import Callable

import numpy as np
import pytest

from components.shards import FIELDS, Sample, check, decode, encode


def test_a_good_sample_passes_and_tells_its_sizes(make_sample: Callable[..., Sample]) -> None:
    sizes = check(make_sample(1))
    assert sizes == {"S": 8, "R": 16, "m": 3, "T": 2, "D": 5, "2C": 8, "h": 4, "w": 4, "E": 6}


def test_bytes_give_back_every_field(make_sample: Callable[..., Sample]) -> None:
    sample = make_sample(7)
    again = decode(encode(sample))
    assert again.keys() == sample.keys()
    assert again["meta.json"] == sample["meta.json"]
    for field in FIELDS:
        assert again[field.name].dtype == field.dtype
        np.testing.assert_array_equal(again[field.name], sample[field.name])


def test_the_same_sample_gives_the_same_bytes(make_sample: Callable[..., Sample]) -> None:
    assert encode(make_sample(3)) == encode(make_sample(3))
    assert encode(make_sample(3)) != encode(make_sample(4))


def test_latents_may_be_left_out_and_nothing_else(make_sample: Callable[..., Sample]) -> None:
    sample = make_sample(1)
    del sample["latents.npy"]
    check(sample)
    del sample["features.npy"]
    with pytest.raises(ValueError, match=r"missing fields \['features.npy'\]"):
        check(sample)


def spoil(name: str, change: Callable[[np.ndarray], object]) -> Callable[[Sample], None]:
    def apply(sample: Sample) -> None:
        sample[name] = change(sample[name])

    return apply


def set_at(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array.flat[0] = value
        return array

    return change


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (spoil("photo.png", lambda a: a.astype(np.float32)), r"photo\.png: expected uint8, found float32"),
        (spoil("photo.png", lambda a: a[..., 0]), "expected 3 axes"),
        (spoil("photo.png", lambda a: a[:, :4]), "axis S is 4, expected 8"),
        (spoil("mask.png", lambda a: np.zeros((9, 9), np.uint8)), "axis S is 9, expected 8"),
        (spoil("mask.png", set_at(17)), "other than 0 and 255"),
        (spoil("features.npy", set_at(np.nan)), "not finite"),
        (spoil("latents.npy", set_at(np.inf)), "not finite"),
        (spoil("identity.npy", lambda a: a * 0.9), r"norm 0\.9000, expected 1"),
        (spoil("identity.npy", lambda a: a * 9), "allowed -1..1"),
        (spoil("features.npy", lambda a: a.tolist()), "found list"),
        (lambda s: s.update(extra=b""), r"unknown fields \['extra'\]"),
        (lambda s: s["meta.json"].pop("person"), "no person"),
    ],
)
def test_every_fault_is_named(make_sample: Callable[..., Sample], fault: Callable, message: str) -> None:
    sample = make_sample(1)
    fault(sample)
    with pytest.raises(ValueError, match=message):
        check(sample)


def test_sizes_of_an_earlier_sample_bind(make_sample: Callable[..., Sample]) -> None:
    sizes = check(make_sample(1))
    with pytest.raises(ValueError, match="axis S is 10, expected 8"):
        check(make_sample(2, side=10), sizes)


def test_only_the_wanted_fields_are_decoded(make_sample: Callable[..., Sample]) -> None:
    encoded = encode(make_sample(1)) | {"target.png": b"broken"}
    assert set(decode(encoded, ["mask.png"])) == {"__key__", "mask.png", "meta.json"}
    with pytest.raises(ValueError, match=r"field target\.png"):
        decode(encoded, ["target.png"])
    with pytest.raises(ValueError, match=r"has no depth\.png"):
        decode(encoded, ["depth.png"])


def test_pickles_are_never_loaded(make_sample: Callable[..., Sample]) -> None:
    import io

    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="is never read"):
        decode(encode(make_sample(1)) | {"features.npy": buffer.getvalue()})
