"""Generated requests: good ones with some fields spoilt, any JSON, any bytes."""

import base64
import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from components.registry import Request
from tests.unit.serving.fakes import encoded

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [*Request.model_fields, "x"]
DIALS = ["gamma", "sigma", "alpha", "m", "guidance_scale", "num_inference_steps", "x"]


@st.composite
def photos(draw) -> str:
    """A photo's base64: whole, cut, spoilt in the middle, of another kind, or none at all."""
    kind = draw(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP"]))
    data = encoded(kind, draw(st.sampled_from([(1, 1), (8, 8), (40, 30)])))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(data)))
        noise = draw(st.binary(max_size=30))
        data = data[:at] + noise + data[at + len(noise) * draw(st.integers(0, 3)) :]
    text = base64.b64encode(data).decode()
    return draw(
        st.sampled_from(
            [text, text[:-1], text + "=", text.replace("+", "-"), f" {text}", text[: len(text) // 2]]
        )
    )


CONSENTS = st.fixed_dictionaries(
    {"purpose": st.text(max_size=5)},
    optional={"person": st.text(max_size=5), "given": st.text(max_size=5) | st.dates().map(str)},
)
SPECIAL = {
    "photo": photos(),
    "consent": CONSENTS,
    "card": st.text("0123456789abcdef", min_size=31, max_size=33),
    "dials": st.dictionaries(st.sampled_from(DIALS), st.floats() | st.integers(-5, 60), max_size=3),
    "prompt": st.text(max_size=50) | st.sampled_from(["S*", "no face", "S* " * 500, "\ud800"]),
    "pictures": st.integers(-1, 6),
    "seed": st.integers(-1, 2**33),
}


@st.composite
def bodies(draw, good: Callable[[], dict[str, Any]]) -> bytes:
    """A request that is good but for some fields, any JSON, or any bytes."""
    shape = draw(st.sampled_from(["changed", "changed", "changed", "json", "bytes"]))
    if shape == "bytes":
        return draw(st.binary(max_size=200))
    if shape == "json":
        return json.dumps(draw(values)).encode("utf-8", "surrogatepass")
    request = good()
    for name in draw(st.lists(st.sampled_from(FIELDS), max_size=3)):
        request[name] = draw(SPECIAL[name] if name in SPECIAL and draw(st.booleans()) else values)
        if draw(st.integers(0, 9)) == 0:
            del request[name]
    return json.dumps(request).encode("utf-8", "surrogatepass")
