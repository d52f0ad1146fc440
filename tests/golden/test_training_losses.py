"""A short seeded run gives the losses that are on record: a change of numerics is seen."""

import json

import pytest

from tests.golden.renew import RECORD, SETTINGS, golden_run


def test_losses_are_those_on_record(tmp_path):
    record = json.loads(RECORD.read_text())
    assert record["settings"] == SETTINGS, f"other settings: renew with `{record['renewed_by']}`"
    found = golden_run(tmp_path)
    for name, expected in record["losses"].items():
        assert found[name] == pytest.approx(expected, rel=record["relative_tolerance"], abs=1e-5), name


def test_the_run_on_record_learns():
    loss = json.loads(RECORD.read_text())["losses"]["diffusion"]
    assert sum(loss[-10:]) < 0.95 * sum(loss[:10])  # a frozen, untrained UNet leaves little to gain
