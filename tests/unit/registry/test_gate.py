import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.core import (
    Checkpoint,
    CopyingFigures,
    EvaluationReport,
    IdentityFigures,
    ObedienceFigures,
)
from components.registry.config import GateThresholds
from components.registry.gate import ChampionFigures, decide

THRESHOLDS = GateThresholds()


def test_a_good_candidate_becomes_champion_and_each_reason_is_said(report, checkpoint):
    decision = decide(report(), checkpoint(), None, THRESHOLDS)
    assert decision.decision == "promoted"
    assert decision.failed == 0
    assert all(reason.startswith("passed: ") for reason in decision.reasons)
    for word in (
        "reference gain",
        "floor",
        "base alone",
        "without a face",
        "retrieval",
        "worst group",
        "champion",
    ):
        assert any(word in reason for reason in decision.reasons), word


@pytest.mark.parametrize(
    ("spoilt", "word"),
    [
        ({"generated_interval": (0.06, 0.9)}, "floor"),
        ({"base_alone": 0.44}, "base alone"),
        ({"no_face_rate": 0.3}, "without a face"),
        ({"retrieval_top1": 0.03}, "retrieval"),
        ({"by_group": {"north": 0.9, "south": 0.04}}, "worst group"),
        ({"by_group": {"north": 0.9, "south": 0.5}}, "gap"),
        ({"people": 3}, "people"),
    ],
)
def test_each_fault_alone_keeps_a_candidate_out(report, checkpoint, spoilt, word):
    decision = decide(report(**spoilt), checkpoint(), None, THRESHOLDS)
    assert decision.decision == "registered"
    failed = [reason for reason in decision.reasons if reason.startswith("failed: ")]
    assert failed == list(decision.reasons[: len(failed)])
    assert any(word in reason for reason in failed)


@pytest.mark.parametrize(
    ("spoilt", "word"),
    [
        ({"obedience": {"obeyed": 0.3, "interval": (0.2, 0.4), "base": 0.8}}, "base alone 0.8000"),
        ({"copying": {"generated": 0.99}}, "very photo 0.9900"),
        ({"copying": {"very_photo": 0.95, "other_photos": 0.7}}, "nearness to the very photo"),
        ({"copying": {"diversity": 0.0}}, "variety"),
    ],
)
def test_disobedience_and_copies_keep_a_candidate_out(report, checkpoint, spoilt, word):
    well = {"obedience": OBEDIENT, "copying": VARIED}
    assert decide(behaving(report(), well), checkpoint(), None, THRESHOLDS).decision == "promoted"
    bad = {key: well[key] | spoilt.get(key, {}) for key in well}
    decision = decide(behaving(report(), bad), checkpoint(), None, THRESHOLDS)
    assert (decision.decision, decision.failed) == ("registered", 1)
    assert word in decision.reasons[0]


OBEDIENT = {"obeyed": 0.7, "interval": (0.6, 0.8), "base": 0.8}
VARIED = {
    "generated": 0.3, "other_photo": 0.2, "diversity": 0.4, "base_diversity": 0.9, "very_photo": 0.5,
    "other_photos": 0.48,
}  # fmt: skip


def behaving(report, values):
    changed = {
        "obedience": ObedienceFigures.parse(values["obedience"], source="test"),
        "copying": CopyingFigures.parse(values["copying"], source="test"),
    }
    return report.model_copy(update=changed)


def test_obedience_that_is_asked_for_must_be_measured(report, checkpoint):
    thresholds = GateThresholds(obedience=0.5)
    assert decide(report(), checkpoint(), None, thresholds).decision == "registered"


def test_weights_under_a_blocked_licence_are_refused_and_silent_ones_kept_out(report, checkpoint):
    weights = {"base": "Apache-2.0", "face pack": "non-commercial research"}
    known = {"CC0-1.0": 3}

    def said(licences=known, weight_licences=weights, **thresholds):
        limits = GateThresholds(**thresholds)
        return decide(
            report(), checkpoint(), None, limits, licences=licences, weight_licences=weight_licences
        )

    assert said().decision == "promoted"
    refused = said(blocked_licences=("non-commercial*",))
    assert refused.decision == "refused"
    assert "face pack (non-commercial research)" in refused.reasons[0]
    assert said(licences_stated=True).decision == "promoted"
    silent = said({"not stated": 7}, {"base": "not stated"}, licences_stated=True)
    assert silent.decision == "registered"
    assert "7 photos, base" in silent.reasons[0]
    assert said({}, {}, licences_stated=True).decision == "registered"


def test_no_gain_from_the_reference_keeps_a_candidate_out(report, checkpoint):
    decision = decide(report(), checkpoint(interval=(-0.001, 0.2)), None, THRESHOLDS)
    assert decision.decision == "registered"
    assert "reference gain" in decision.reasons[0]


def test_colour_is_asked_where_that_judge_sat(report, checkpoint, figures):
    good, bad = figures(generated=0.8, floor=0.6), figures(generated=0.6, floor=0.6)
    assert decide(report(colour=good), checkpoint(), None, THRESHOLDS).decision == "promoted"
    assert decide(report(colour=bad), checkpoint(), None, THRESHOLDS).decision == "registered"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_figures_that_are_no_numbers_are_refused(report, checkpoint, value):
    assert decide(report(generated=value), checkpoint(), None, THRESHOLDS).decision == "refused"
    assert decide(report(), checkpoint(losses={"face": value}), None, THRESHOLDS).decision == "refused"
    assert decide(report(), checkpoint(reference_gain=value), None, THRESHOLDS).decision == "refused"
    groups = {"north": 0.5, "south": value}
    assert decide(report(by_group=groups), checkpoint(), None, THRESHOLDS).decision == "refused"


def test_a_ceiling_that_could_not_be_measured_is_no_fault(report, checkpoint):
    assert decide(report(ceiling=None), checkpoint(), None, THRESHOLDS).decision == "promoted"


def test_blocked_licences_are_refused_and_counted(report, checkpoint):
    thresholds = GateThresholds(blocked_licences=("research-only",))
    decision = decide(report(), checkpoint(), None, thresholds, licences={"CC0": 5, "research-only": 7})
    assert decision.decision == "refused"
    assert "7 photos under research-only" in decision.reasons[0]


def test_a_champion_of_other_people_is_not_compared(report, checkpoint, figures):
    champion = ChampionFigures(version="4", measured_on="others", identity=figures(generated=0.99))
    decision = decide(report(), checkpoint(), champion, THRESHOLDS, measured_on="these")
    assert decision.decision == "promoted"
    assert any("means are not compared with champion version 4" in reason for reason in decision.reasons)


def test_groups_that_went_missing_are_a_fault(report, checkpoint, figures):
    champion = ChampionFigures(version="4", measured_on="x", identity=figures())
    decision = decide(report(by_group={"north": 0.6}), checkpoint(), champion, THRESHOLDS, measured_on="x")
    assert decision.decision == "registered"
    assert "south" in decision.reasons[0]


cosines = st.floats(-1, 1)
GROUPS = ("east", "north", "south")


def mostly(good, anything):
    """Values near which promotions happen, now and then any value: else nothing would be promoted."""
    return st.integers(0, 19).flatmap(lambda n: anything if n == 19 else good)


@st.composite
def any_figures(draw):
    generated = draw(mostly(st.floats(0.4, 0.6), cosines))
    low = draw(mostly(st.floats(0.2, 0.4), cosines))
    return IdentityFigures(
        generated=generated,
        generated_interval=tuple(sorted((low, generated))),
        floor=draw(mostly(st.floats(0, 0.2), cosines)),
        base_alone=draw(mostly(st.floats(0, 0.2), cosines)),
        ceiling=draw(cosines),
        retrieval_top1=draw(mostly(st.floats(0.3, 1), st.floats(0, 1))),
        by_group=draw(
            st.fixed_dictionaries({group: mostly(st.floats(0.3, 0.6), cosines) for group in GROUPS})
        ),
        no_face_rate=draw(mostly(st.floats(0, 0.1), st.floats(0, 1))),
    )


@st.composite
def any_copying(draw):
    return CopyingFigures(
        generated=draw(mostly(st.floats(0, 0.9), cosines)),
        other_photo=draw(st.none() | cosines),
        diversity=draw(mostly(st.floats(0.1, 1), st.floats(0, 1))),
        base_diversity=draw(st.none() | st.floats(0, 1)),
        very_photo=draw(mostly(st.floats(0.4, 0.5), cosines)),
        other_photos=draw(st.none() | mostly(st.floats(0.4, 0.5), cosines)),
    )


@st.composite
def any_obedience(draw):
    share = draw(mostly(st.floats(0.7, 1), st.floats(0, 1)))
    return ObedienceFigures(obeyed=share, interval=(0, 1), base=draw(st.none() | st.floats(0, 1)))


@st.composite
def any_thresholds(draw):
    return GateThresholds(
        above_floor=draw(mostly(st.floats(-0.1, 0.1), cosines)),
        above_base=draw(mostly(st.floats(-0.1, 0.1), cosines)),
        worst_group=draw(mostly(st.floats(-0.1, 0.1), cosines)),
        largest_gap=draw(st.floats(0.2, 2)),
        no_face_rate=draw(mostly(st.floats(0.05, 0.2), st.floats(0, 1))),
        retrieval_over_chance=draw(st.floats(0, 10)),
        champion_tolerance=draw(st.floats(0, 0.2)),
        worst_group_tolerance=draw(st.floats(0, 0.2)),
        minimum_people=draw(st.integers(2, 40)),
    )


@st.composite
def any_case(draw):
    report = EvaluationReport(
        report_json="r.json",
        report_html="r.html",
        people=draw(mostly(st.integers(40, 100), st.integers(0, 100))),
        count_out=draw(mostly(st.just(200), st.integers(0, 500))),
        identity=draw(any_figures()),
        copying=draw(st.none() | any_copying()),
        obedience=draw(st.none() | any_obedience()),
    )
    gain = draw(mostly(st.floats(0.01, 0.2), cosines))
    checkpoint = Checkpoint(
        run_name="run",
        folder="f",
        adapter="a",
        step=1,
        reference_gain=gain,
        reference_gain_interval=tuple(sorted((draw(mostly(st.floats(0.001, 0.01), cosines)), gain))),
    )
    measured_on = draw(mostly(st.just("x"), st.just("other people")))
    champion = draw(
        st.none()
        | any_figures().map(lambda f: ChampionFigures(version="1", measured_on=measured_on, identity=f))
    )
    return report, checkpoint, champion, draw(any_thresholds())


quick = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def test_whatever_the_rest_nothing_below_a_threshold_is_promoted():
    promoted = 0

    @quick
    @given(any_case())
    def check(case):
        nonlocal promoted
        report, checkpoint, champion, limits = case
        decision = decide(report, checkpoint, champion, limits, measured_on="x")
        assert decision.reasons
        if decision.decision == "promoted":
            promoted += 1
            assert_within(report, checkpoint, champion, limits)
        else:
            assert decision.failed > 0

    check()
    assert promoted > 40, "the property says nothing if nothing is ever promoted"


def assert_within(report, checkpoint, champion, limits):
    figures, worst = report.identity, min(report.identity.by_group.values())
    assert checkpoint.reference_gain_interval[0] > limits.reference_gain_low
    assert figures.generated_interval[0] > figures.floor + limits.above_floor
    assert figures.generated_interval[0] > figures.base_alone + limits.above_base
    assert figures.no_face_rate <= limits.no_face_rate
    assert figures.retrieval_top1 >= limits.retrieval_over_chance / report.people
    assert worst > figures.floor + limits.worst_group
    assert max(figures.by_group.values()) - worst <= limits.largest_gap
    assert report.people >= limits.minimum_people
    if (copying := report.copying) is not None:
        assert copying.generated <= limits.copying
        assert copying.diversity >= limits.diversity
        if copying.other_photos is not None:
            assert copying.very_photo - copying.other_photos <= limits.copy_margin
    if report.obedience is not None and report.obedience.base is not None:
        assert report.obedience.obeyed >= limits.obedience_of_base * report.obedience.base
    if champion is not None:
        champions = champion.identity
        if champion.measured_on == "x":
            assert figures.generated >= champions.generated - limits.champion_tolerance
        assert worst >= min(champions.by_group.values()) - limits.worst_group_tolerance


def failed_of(decision):
    return [reason for reason in decision.reasons if reason.startswith("failed: ")]


@settings(quick, max_examples=120)
@given(any_case(), st.floats(0.001, 1), st.sampled_from(GROUPS), st.sampled_from(["x", "other people"]))
def test_a_worse_worst_group_is_never_promoted_whatever_the_rest(case, below, group, measured_on):
    """Also where champion and candidate were judged on other people."""
    report, checkpoint, _, limits = case
    champions = report.identity.by_group | {name: 0.9 for name in GROUPS}
    champion = ChampionFigures(
        version="1",
        measured_on=measured_on,
        identity=report.identity.model_copy(update={"by_group": champions, "generated": -1.0}),
    )
    groups = dict.fromkeys(GROUPS, 1.0) | {group: 0.9 - limits.worst_group_tolerance - below}
    candidate = report.model_copy(
        update={"identity": report.identity.model_copy(update={"by_group": groups})}
    )
    decision = decide(candidate, checkpoint, champion, limits, measured_on="x")
    assert decision.decision != "promoted"
    if decision.decision == "registered":
        assert any(f"worst group, {group}, " in r and "version 1" in r for r in failed_of(decision))


@quick
@given(any_case(), st.sampled_from(GROUPS), st.floats(0, 0.5))
def test_better_groups_and_more_faces_never_cost_the_promotion(case, group, more):
    report, checkpoint, champion, limits = case
    before = decide(report, checkpoint, champion, limits, measured_on="x")
    worst = min(report.identity.by_group, key=lambda name: report.identity.by_group[name])
    better = report.identity.by_group | {worst: min(report.identity.by_group[worst] + more, 1.0)}
    if max(better.values()) > max(report.identity.by_group.values()):
        return  # lifting the worst above the best opens a new gap
    identity = report.identity.model_copy(
        update={"by_group": better, "no_face_rate": max(0, report.identity.no_face_rate - more)}
    )
    after = decide(
        report.model_copy(update={"identity": identity}), checkpoint, champion, limits, measured_on="x"
    )
    assert after.failed <= before.failed


@quick
@given(any_case())
def test_the_decision_is_a_function_of_its_arguments(case):
    report, checkpoint, champion, limits = case
    assert decide(report, checkpoint, champion, limits) == decide(report, checkpoint, champion, limits)
