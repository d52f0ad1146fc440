"""Why a request of a batch was not drawn: said in its row, without repeating photo or words."""

import numpy as np
import pytest
from PIL import Image

from components.inference import (
    PhotoRules,
    batch,
)
from tests.unit.inference.made_batches import CONFIG, request, rows, write


def test_a_photo_of_several_people_is_an_error_row_where_the_rules_say_so(folder, run, photos):
    two = np.concatenate([np.asarray(Image.open(photo)) for photo in photos[:2]], axis=1)
    Image.fromarray(two).save(folder / "two.png")
    file = write(folder / "requests.jsonl", request(0), request(1, photo="two.png"))
    strict = CONFIG.model_copy(update={"photo_rules": PhotoRules(several_faces="reject")})
    assert [row.status for row in rows(run(file, strict))] == ["done", "failed"]
    assert rows(run(file, strict))[1].error == (
        "several faces in the photo (2): crop it to the one that is meant"
    )
    assert [row.status for row in rows(run(file))] == ["done", "done"]  # the default takes the largest


def test_a_fault_of_ours_fails_its_own_request_alone(folder, run, monkeypatch, caplog):
    from components.inference.personalize import Personalizer

    generate = Personalizer.generate_each

    def faulty(self, persons, prompts, *args, **kwargs):
        if any("bug" in prompt for prompt in prompts):
            raise RuntimeError("a fault of ours")
        return generate(self, persons, prompts, *args, **kwargs)

    monkeypatch.setattr(Personalizer, "generate_each", faulty)
    record = run(write(folder / "requests.jsonl", request(0), request(1, prompt="a bug on S*"), request(2)))
    assert [row.status for row in rows(record)] == ["done", "failed", "done"]
    assert rows(record)[1].error == "internal fault: RuntimeError; the log has the rest"
    assert "a fault of ours" in caplog.text


def test_a_worker_that_gives_no_answer_is_an_error_row(folder, run, monkeypatch):
    monkeypatch.setattr(batch, "_ray_rows", lambda *_: [])
    record = run(write(folder / "requests.jsonl", request(0)))
    assert rows(record)[0].error == "internal fault: the workers gave no answer"


@pytest.mark.parametrize(
    ("text", "message"), [(None, "no requests file"), ("", "holds no request"), ("\n \n", "holds no")]
)
def test_a_file_without_requests_is_an_error(folder, run, text, message):
    file = folder / "requests.jsonl"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=message):
        run(file)


def test_a_blocked_request_has_a_status_of_its_own(folder, run, monkeypatch):
    import components.inference.personalize as module

    check = lambda images: [np.asarray(image).mean() >= 0 for image in images]  # noqa: E731 - all of them
    monkeypatch.setattr(module, "load_safety_check", lambda *_: check)
    record = run(write(folder / "requests.jsonl", request(0), request(1, photo="nobody.png")))
    assert (record.done, record.failed, record.blocked) == (0, 2, 1)
    blocked, failed = rows(record)
    assert (blocked.status, failed.status) == ("blocked", "failed")
    assert blocked.error.startswith("blocked by the base's safety checker (seed 0)")
    assert not (folder / "out" / "pictures").exists()
    monkeypatch.setattr(module, "load_safety_check", lambda *_: None)
    assert run(folder / "requests.jsonl").done == 1  # as what failed, it is tried again


SECRET = "canary-of-the-request"
FAULTY = {
    "prompt": {"prompt": f"{SECRET} " * 100},
    "tokens": {"prompt": f"S* {SECRET} " + "a " * 60},
    "two people": {"prompt": f"S1* and S2* {SECRET}"},
    "kind": {"prompt": [SECRET]},
    "negative": {"negative_prompt": {"text": SECRET}},
    "photo itself": {"photo": SECRET * 20_000},
    "photo in a list": {"photo": [{"base64": SECRET}]},
    "card": {"photo": None, "consent": None, "card": f"{SECRET} {'x' * 60}"},
    "seed": {"seed": SECRET},
    "dials": {"dials": {"sigma": SECRET}},
    "dials kind": {"dials": [SECRET]},
    "dial of that name": {"dials": {f"{'x' * 40}{SECRET}": 1}},
    "field of that name": {f"{'x' * 40}{SECRET}": 1},
    "consent": {"consent": SECRET},
    "purpose": {"consent": {"person": "anna", "purpose": SECRET * 100}},
    "given": {"consent": {"person": "anna", "purpose": "x", "given": SECRET}},
    "id": {"id": f"S* {SECRET}"},
    "two ids": {"id": [SECRET]},
}


def test_a_reason_never_repeats_photo_or_words(folder, run):
    lines = [request(i) | changed for i, changed in enumerate(FAULTY.values())]
    junk = ['{"prompt": "canary-of-the-request', f'["{SECRET}"]', f'"{SECRET}"']
    record = run(write(folder / "requests.jsonl", *lines, *junk))
    assert (record.done, record.failed) == (0, len(lines) + len(junk))
    for name, row in zip((*FAULTY, *junk), rows(record), strict=True):
        assert row.error, name
        assert SECRET not in row.model_dump_json(), name
        assert len(row.error) <= 500
    assert SECRET not in (folder / "out" / "ledger.jsonl").read_text()
