import base64
import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.registry.config import ServingLimits
from components.registry.request import Request, decode_photo, parse_request, parse_requests, request_schema

LIMITS = ServingLimits(photo_bytes=100_000, photo_pixels=1_000_000, pictures=4, requests=2, steps=50)


def photo(kind="PNG", size=(8, 6), exif=None) -> str:
    picture = Image.fromarray(np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(size[1], size[0], 3))
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **({"exif": exif} if exif else {}))
    return base64.b64encode(buffer.getvalue()).decode()


CONSENT = {"person": "anna", "purpose": "own photo", "given": "2026-01-01"}
BY_CARD = {"photo": None, "consent": None, "card": "f" * 32}
GOOD = {"photo": "QUJD", "consent": CONSENT, "prompt": "a photo of S*"}


def test_a_minimal_request_gets_the_defaults():
    request = parse_request(GOOD, LIMITS)
    assert (request.seeds, request.dials.gamma, request.negative_prompt) == ([0], None, "")


def test_seeds_count_up():
    assert parse_request(GOOD | {"seed": 2**32 - 1, "pictures": 3}, LIMITS).seeds == [2**32 - 1, 0, 1]


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"colour": "red"}, "'colour': unknown field"),
        ({"dials": {"beta": 1}}, "dials.'beta': unknown field"),
        ({"prompt": 7}, "prompt: Input should be a valid string"),
        ({"prompt": " \n"}, "prompt: is empty"),
        ({"consent": ""}, "consent"),
        ({"consent": True}, "consent"),
        ({"consent": None}, "consent: Field required with a photo"),
        ({"consent": {"person": "anna"}}, "consent.purpose: Field required"),
        ({"consent": CONSENT | {"purpose": "  "}}, "consent.purpose: Value error, is empty"),
        ({"consent": CONSENT | {"person": "a b"}}, "consent.person"),
        ({"consent": {"purpose": "x"}}, "needs the person's ID"),
        ({"consent": CONSENT | {"given": "2999-01-01"}}, "in the future"),
        ({"consent": CONSENT | {"given": "soon"}}, "consent.given"),
        ({"strength": 0}, "strength"),
        ({"strength": float("nan")}, "strength"),
        ({"similarity": 1}, "similarity"),
        ({"card": "f" * 32}, "photo: who is meant?"),
        ({"card": "../x"}, "card"),
        (
            {"photo": None, "consent": None, "card": "f" * 32, "similarity": True},
            "similarity: belongs to a photo",
        ),
        ({"photo": None, "consent": None, "card": "f" * 32, "strength": 0.5}, "strength: belongs to a photo"),
        ({"photo": None, "card": "f" * 32}, "consent: belongs to a photo"),
        ({"prompt": "x" * 1001}, "characters of prompt: 1001 is above"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"seed": "1"}, "seed"),
        ({"pictures": 0}, "pictures"),
        ({"pictures": 5}, "pictures: 5 is above the limit of 4"),
        ({"dials": {"gamma": float("nan")}}, "dials.gamma"),
        ({"dials": {"sigma": float("inf")}}, "dials.sigma"),
        ({"dials": {"sigma": 5}}, "dials.sigma"),
        ({"dials": {"m": 0}}, "dials.m"),
        ({"dials": {"num_inference_steps": 51}}, "num_inference_steps: 51 is above"),
        ({"dials": {"candidates": 33}}, "dials.candidates: 33 is above the limit of 32"),
        ({"dials": []}, "dials"),
        ({"photo": None}, "photo"),
        ({"prompt": "\ud800"}, "prompt"),
    ],
)
def test_each_fault_is_one_line_that_names_the_field(changed, complaint):
    with pytest.raises(ValueError, match=".") as caught:
        parse_request(GOOD | changed, LIMITS)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("missing", "words"),
    [("photo", "who is meant"), ("consent", "Field required"), ("prompt", "Field required")],
)
def test_what_is_needed_is_asked_for(missing, words):
    with pytest.raises(ValueError, match=f"{missing}: .*{words}"):
        parse_request({key: value for key, value in GOOD.items() if key != missing}, LIMITS)


@pytest.mark.parametrize("values", [None, "abc", b"abc", {}, 3, [], [GOOD] * 3])
def test_a_call_is_a_short_list_of_requests(values):
    with pytest.raises(ValueError, match="list|requests in one call"):
        parse_requests(values, LIMITS)


def test_the_faulty_request_is_named_by_its_number():
    with pytest.raises(ValueError, match="request 1: 'x': unknown"):
        parse_requests([GOOD, GOOD | {"x": 1}], LIMITS)


def test_faults_never_repeat_what_was_sent():
    secret = "SECRET" * 20
    for value in (
        {"photo": [secret], "prompt": secret * 30},
        {"photo": secret, "prompt": {"x": secret}},
        [secret],
    ):
        with pytest.raises(ValueError, match=".") as caught:
            parse_request(value, LIMITS)
        assert "SECRET" not in str(caught.value)
    with pytest.raises(ValueError, match="photo") as caught:
        decode_photo(secret + "!", LIMITS)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_photos_of_known_kinds_are_read(kind):
    assert decode_photo(photo(kind), LIMITS).shape == (6, 8, 3)


def test_a_photo_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    assert decode_photo(photo("JPEG", exif=exif), LIMITS).shape == (8, 6, 3)


def bomb() -> str:
    """A PNG of 30,000 x 30,000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (30_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        ("not base64!", "not valid base64"),
        ("QUJD\n", "not valid base64"),
        ("ä", "not valid base64"),
        ("", "no picture file"),
        ("QUJD", "no picture file"),
        (photo("GIF"), "no picture file"),
        (photo("PNG", (64, 64))[:200], "damaged"),
        ("A" * 200_000, "larger than 100000 bytes"),
        (photo("PNG", (1200, 1000)), "1200 x 1000 pixels; allowed: 1000000"),
        (bomb(), "pixels; allowed"),
    ],
)
def test_bad_photos_are_refused_in_one_line(sent, complaint):
    with pytest.raises(ValueError, match=complaint):
        decode_photo(sent, LIMITS)


def test_the_schema_says_what_the_door_checks():
    schema = request_schema()
    assert set(schema["properties"]) == set(Request.model_fields)
    assert schema["additionalProperties"] is False
    assert {"required": ["card"]} in schema["oneOf"]
    assert schema["$defs"]["Consent"]["required"] == ["purpose"]


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
fields = st.dictionaries(
    st.sampled_from(["photo", "consent", "prompt", "negative_prompt", "seed", "pictures", "dials", "x"]),
    json_like,
)


def fault_of(function, *arguments) -> str | None:
    """The message of the ValueError that a call ends with, None where it ends well."""
    try:
        function(*arguments)
    except ValueError as error:
        return str(error)
    return None


@settings(max_examples=300, deadline=None, derandomize=True)
@given(fields | json_like)
def test_whatever_is_sent_is_a_request_or_a_fault_of_one_line(value):
    assert "\n" not in (fault_of(parse_request, value, LIMITS) or "")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.binary(max_size=200), st.integers(0, 300), st.sampled_from(["PNG", "JPEG", "WEBP"]))
def test_whatever_the_file_it_is_a_picture_or_a_fault(noise, position, kind):
    good = base64.b64decode(photo(kind, (16, 16)))
    spoilt = good[:position] + noise + good[position + len(noise) :]
    assert (fault_of(decode_photo, base64.b64encode(spoilt).decode(), LIMITS) or "photo").startswith("photo")
