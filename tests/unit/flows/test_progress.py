"""Progress lines, the terminal's board, and the demo's summary."""

import csv
import io
import json

import pytest

from flows.demo import say, summarize, write_requests
from flows.progress import Step, listening, parse, tell
from flows.terminal import Board


@pytest.mark.parametrize(
    "line",
    [
        "prepare [####----------------] 3/15 photos 2.1/s, 0:05 left",
        "2026-11-22 22:15:35,604 INFO    a.b: prepare [####----------------] 3/15 photos 2.1/s",
        "(Worker pid=21) INFO    x: prepare [####----------------] 3/15 photos 2.1/s",
    ],
)
def test_a_progress_line_is_read_wherever_it_stands(line):
    step = parse("prepare", line)
    assert (step.done, step.total) == (3, 15)
    assert step.text.startswith("prepare [####----------------] 3/15 photos 2.1/s")


@pytest.mark.parametrize("line", ["loss [0.1, 0.2]", "see [1] and 3/4", "", "[####] 1/2"])
def test_other_lines_are_no_progress(line):
    assert parse("train", line) is None


def test_listeners_hear_only_within_their_block():
    heard = []
    with listening(heard.append):
        tell(Step("train", 1, 2))
    tell(Step("train", 2, 2))
    assert [step.done for step in heard] == [1]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show(stream, *steps):
    with Board(stream) as board:
        for step in steps:
            board(step)
    return stream.getvalue()


STEPS = (
    Step("train", state="started"),
    Step("train", 1, 4, "train [#####] 1/4 steps"),
    Step("train", 4, 4, state="done"),
    Step("evaluate", 9, 9, state="kept"),
)


def test_a_terminal_gets_one_line_a_stage():
    lines = show(Terminal(), *STEPS).split("\n")
    assert len(lines) == 3
    assert "1/4 steps" in lines[0]
    assert lines[0].split("\x1b[K")[-1].split() == ["train", "done", "0:00", "4", "out"]
    assert "kept (done before)" in lines[1]


def test_a_file_gets_plain_lines():
    text = show(io.StringIO(), *STEPS)
    assert "\x1b" not in text
    assert "\r" not in text
    assert "train [#####] 1/4 steps" in text


def test_a_file_hears_of_each_thing_that_a_stage_counts():
    counted = [Step("evaluate", 5, 5, "evaluate 5/5"), Step("evaluate", 1, 8, "evaluate 1/8")]
    text = show(io.StringIO(), Step("evaluate", state="started"), *counted)
    assert text.split("\n")[:2] == ["  evaluate 5/5", "  evaluate 1/8"]


def test_requests_are_of_held_out_people_alone_and_bring_their_photos(tmp_path):
    people = tmp_path / "people"
    (people / "images").mkdir(parents=True)
    with (people / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "identity", "split", "consent"])
        for i in range(12):
            table.writerow([f"images/{i}.png", f"p{i // 2}", "heldout" if i >= 4 else "train", "drawn"])
            (people / "images" / f"{i}.png").write_bytes(bytes([i]))
    file = write_requests(people, tmp_path / "requests", count=3)
    requests = [json.loads(line) for line in file.read_text().splitlines()]
    assert [request["id"] for request in requests] == ["p2", "p3", "p4"]
    assert all("S*" in request["prompt"] for request in requests)
    assert (file.parent / requests[0]["photo"]).read_bytes() == bytes([4])


def test_the_summary_has_what_was_promised(tmp_path):
    base = {"seconds": 2.0, "count_in": 3, "count_out": 3}
    identity = {
        "generated": 0.4, "generated_interval": [0.3, 0.5], "floor": 0.1, "base_alone": 0.05, "ceiling": 0.9,
        "retrieval_top1": 0.25,
    }  # fmt: skip
    records = {
        "portraits": base,
        "prepare": base | {"folder": "s"},
        "train": base | {"reference_gain": 0.07, "reference_gain_interval": [0.05, 0.09], "step": 2,
                         "losses": {},
                         "adapter": "a"},
        "evaluate": base | {"identity": identity, "colour": None, "people": 40, "report_html": "r.html"},
        "promote": base | {"decision": "promoted", "reasons": ["ok"], "model_uri": "models:/photoverse/1"},
        "personalize": base
        | {"requests": 4, "done": 3, "failed": 1, "skipped": 0, "folder": "f", "ledger": "l"},
    }  # fmt: skip
    summary = summarize(records, tmp_path, seconds=125)
    assert summary["stages"]["prepare"] == {"seconds": 2.0, "in": 3, "out": 3}
    assert summary["train"]["reference_gain"] == 0.07
    assert summary["evaluate"]["identity"]["retrieval_top1"] == 0.25
    assert summary["promote"]["decision"] == "promoted"
    assert summary["personalize"] == {"requests": 4, "done": 3, "failed": 1, "skipped": 0}
    text = say(summary, tmp_path / "summary.json")
    assert "Done in 2:05" in text
    assert "0.40 (strangers 0.10" in text
