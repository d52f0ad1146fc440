"""Generators whose verdict is known beforehand, judged on drawn people with the real detector."""

from dataclasses import replace

import numpy as np
import pytest

from components.evaluation.generate import picture_seeds
from components.evaluation.panel import judge
from components.evaluation.scores import identity_figures
from components.evaluation.stage import gather


@pytest.fixture
def verdict_of(config, photos, finder, colour_judge, planted, tmp_path):
    def run(kind):
        evidence = gather(config, photos, planted(kind), tmp_path / kind)
        return judge(config, evidence, finder, [colour_judge])

    return run


def test_a_copier_is_at_the_top_of_the_axis_and_caught_by_copying_and_variety(verdict_of):
    verdict = verdict_of("copier")
    figures = identity_figures(verdict.tables[0])
    assert figures.generated == pytest.approx(1, abs=1e-6)
    assert figures.generated > figures.ceiling > figures.floor
    assert figures.retrieval_top1 == 1
    copying = verdict.copying
    assert copying.generated == pytest.approx(1)
    assert copying.diversity == pytest.approx(0, abs=1e-9)
    assert copying.other_photo < 0.9 < copying.generated
    assert copying.very_photo == pytest.approx(1)
    assert copying.other_photos < copying.very_photo - 0.02
    assert copying.pose_change == copying.expression_change == 0
    assert copying.pose_change_real > 0.1


def test_a_keeper_of_identity_is_near_the_ceiling_and_no_copier(verdict_of):
    verdict = verdict_of("keeper")
    figures = identity_figures(verdict.tables[0])
    assert figures.generated == pytest.approx(figures.ceiling, abs=0.08)
    assert figures.generated_interval[0] > figures.floor
    assert figures.retrieval_top1 > 3 / 8
    copying = verdict.copying
    assert copying.diversity > 0.1
    assert copying.generated < 0.9
    assert copying.other_photos == pytest.approx(copying.very_photo, abs=0.08)
    assert copying.pose_change == pytest.approx(copying.pose_change_real, rel=0.6)
    assert copying.expression_change > 0.02


def test_a_decoder_that_loses_nothing_is_at_the_top_and_one_that_loses_all_is_at_zero(
    config, photos, finder, colour_judge, planted, tmp_path
):
    evidence = gather(config, photos, planted("copier"), tmp_path)
    kept = [photo.target_uint8 for photo in evidence.references]
    lost = [np.zeros_like(picture) for picture in kept]
    seen = [
        judge(config, replace(evidence, through_vae=pictures), finder, [colour_judge]).tables[0]
        for pictures in (kept, lost, [])
    ]
    means = [identity_figures(table).through_vae for table in seen]
    assert means[0] == pytest.approx(1, abs=0.05)
    assert means[1] == 0
    assert means[2] is None


def test_strangers_are_at_the_floor(verdict_of):
    figures = identity_figures(verdict_of("strangers").tables[0])
    assert figures.generated == pytest.approx(figures.floor, abs=0.08)
    assert figures.generated == pytest.approx(figures.base_alone, abs=0.08)
    assert figures.retrieval_top1 < 0.4


def test_pictures_without_a_face_count_as_similarity_zero(verdict_of):
    verdict = verdict_of("blank")
    figures = identity_figures(verdict.tables[0])
    assert figures.no_face_rate == 1
    assert figures.generated == 0
    assert figures.retrieval_top1 == 0
    assert not verdict.found_RK.any()
    assert np.isfinite(figures.floor)


def test_failures_are_not_dropped_from_the_mean(config, photos, finder, colour_judge, planted, tmp_path):
    """One of the three pictures of one of the eight people shows nothing."""
    copier, failing = planted("copier"), picture_seeds(config, photos[0])[1]
    whole = copier.picture
    copier.picture = lambda reference, seed: (
        np.zeros((64, 64, 3), np.uint8)
        if reference is photos[0] and seed == failing
        else whole(reference, seed)
    )
    verdict = judge(config, gather(config, photos, copier, tmp_path), finder, [colour_judge])
    figures = identity_figures(verdict.tables[0])
    assert figures.generated == pytest.approx(1 - 1 / 24)
    assert figures.no_face_rate == pytest.approx(1 / 24)
    assert figures.retrieval_top1 == pytest.approx(1 - 1 / 24)


def test_every_group_and_gender_has_its_row(verdict_of, photos):
    table = verdict_of("keeper").tables[0]
    groups, genders = {p.group for p in photos}, {p.gender for p in photos}
    assert set(table.rows) == {"all"} | {f"group: {g}" for g in groups} | {f"gender: {g}" for g in genders}
    people = sum(table.rows[f"group: {group}"]["generated"].people for group in groups)
    assert people == table.rows["all"]["generated"].people == 8
