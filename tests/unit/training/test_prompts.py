"""Prompts: the training prompt, none, or a photo's own; one that is too long is told of."""

import logging

import pytest

from tests.unit.training.made_prompts import made_prompts


def test_each_sample_has_the_rows_of_its_prompt():
    ids, positions = made_prompts().rows([None, "", "S* smiling", None])
    assert ids[0].tolist() == [1, 11, 15, 12, 1, 1, 2, 0, 0, 0]
    assert positions[0].tolist() == [-1, -1, -1, -1, 0, 1, -1, -1, -1, -1]
    assert ids[1].tolist() == [1, 2] + [0] * 8
    assert (positions[1] == -1).all()
    assert ids[2].tolist() == [1, 1, 1, 17, 2] + [0] * 5
    assert positions[2].tolist() == [-1, 0, 1] + [-1] * 7
    assert ids[3].tolist() == ids[0].tolist()


def test_a_prompt_that_is_too_long_gives_way_once_told(caplog):
    prompts, long = made_prompts(), "S*, who stands before a wall of many colours and smiles"
    with caplog.at_level(logging.WARNING):
        ids, _ = prompts.rows([long, None, long])
    assert ids[0].tolist() == ids[1].tolist() == ids[2].tolist()
    (record,) = caplog.records
    assert long in record.getMessage()
    assert "too long" in record.getMessage()


def test_a_training_prompt_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="too long"):
        made_prompts("S* " + "very " * 20).rows([None])
