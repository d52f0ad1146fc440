"""Short seeded runs give the losses that are on record: a change of numerics is seen."""

import json

import pytest

from tests.golden.renew import base_of, golden_run, record_file, settings_of

SLOW = pytest.param(
    "portraits", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]
)  # a minute on a quiet core


@pytest.mark.parametrize("which", ["tiny", SLOW])
def test_losses_are_those_on_record(tmp_path, which):
    record = json.loads(record_file(which).read_text())
    mend = f"renew with `{record['renewed_by']}`"
    assert record["settings"] == settings_of(which), f"other settings: {mend}"
    assert record["base"] == base_of(which), f"another base: {mend}"
    found = golden_run(tmp_path, which)
    for name, expected in record["losses"].items():
        assert len(expected) == 50
        assert found[name] == pytest.approx(expected, rel=record["relative_tolerance"], abs=1e-5), name


def test_the_run_on_record_learns():
    loss = json.loads(record_file("tiny").read_text())["losses"]["diffusion"]
    assert sum(loss[-10:]) < 0.95 * sum(loss[:10])  # a frozen, untrained UNet leaves little to gain
