import base64
import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from components.registry.answers import one_line
from components.registry.config import ServingLimits
from components.registry.engine import Drawn
from components.registry.served import Service, ServiceError, registered_as

PICTURE = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))


def sent(**changed):
    buffer = io.BytesIO()
    PICTURE.save(buffer, format="PNG")
    return {
        "photo": base64.b64encode(buffer.getvalue()).decode(),
        "consent": {"person": "anna", "purpose": "a test"},
        "prompt": "a photo of S*",
    } | changed


def service(draw):
    """A service whose engine calls `draw(photo_uint8, request)` for each job."""

    def one(job):
        try:
            return Drawn(draw(job.photo_uint8, job.request))
        except Exception as error:  # noqa: BLE001 - as an engine does
            return error

    return Service(lambda jobs: [one(job) for job in jobs], ServingLimits(), "7")


def invert(photo_uint8, request):
    return [Image.fromarray(255 - photo_uint8 - k) for k in range(request.pictures)]


def test_an_answer_holds_pictures_seeds_and_version():
    (answer,) = service(invert).answer([sent(pictures=2, seed=5)])
    assert answer["seeds"] == [5, 6]
    assert answer["model_version"] == "7"
    first = Image.open(io.BytesIO(base64.b64decode(answer["pictures"][0])))
    np.testing.assert_array_equal(np.asarray(first), 255 - np.asarray(PICTURE))


def test_the_callers_fault_is_a_400_whose_message_nobody_can_lengthen():
    with pytest.raises(ServiceError) as caught:
        service(invert).answer([sent(), sent(colour=1)])
    error = caught.value
    assert error.get_http_status_code() == 400
    assert error.message == "request 1: 'colour': unknown field"
    error.message = f"Failed to predict data '{sent()}'"  # as MLflow's server does
    assert error.message == "request 1: 'colour': unknown field"
    assert sent()["photo"] not in error.serialize_as_json()


def test_a_photo_that_the_engine_cannot_use_is_the_callers_fault():
    def no_face(photo_uint8, request):
        raise ValueError("no face in\nthe photo")

    with pytest.raises(ServiceError, match="request 0: no face in the photo") as caught:
        service(no_face).answer([sent()])
    assert caught.value.get_http_status_code() == 400


def test_a_long_reason_keeps_its_beginning_and_its_end():
    text = one_line("prompt '" + "word " * 500 + "' is 372 tokens too long")
    assert len(text) <= 300
    assert text.startswith("prompt 'word")
    assert text.endswith("is 372 tokens too long")
    assert one_line("a\n b") == "a b"


def test_our_own_fault_is_a_500_with_an_id_that_the_log_knows(caplog):
    def broken(photo_uint8, request):
        raise RuntimeError("weights of the unet are gone")

    with pytest.raises(ServiceError) as caught:
        service(broken).answer([sent()])
    assert caught.value.get_http_status_code() == 500
    assert "unet" not in caught.value.serialize_as_json()
    mark = caught.value.message.split()[2].rstrip(":")
    assert mark in caplog.text
    assert "weights of the unet are gone" in caplog.text


def test_nothing_is_generated_for_a_call_with_a_fault():
    asked = []
    with pytest.raises(ServiceError):
        service(lambda photo, request: asked.append(1)).answer([sent(), sent(photo="QUJD")])
    assert asked == []


def test_two_threads_never_use_the_engine_at_once():
    inside, most = [0], [0]

    def slow(photo_uint8, request):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.02)
        inside[0] -= 1
        return [PICTURE]

    one = service(slow)
    threads = [threading.Thread(target=one.answer, args=([sent()],)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_the_recipe_that_a_picture_carries_goes_along():
    def draw(photo_uint8, request):
        picture = PICTURE.copy()
        picture.info["photoverse"] = "AI-generated, größte"
        return [picture]

    (answer,) = service(draw).answer([sent()])
    back = Image.open(io.BytesIO(base64.b64decode(answer["pictures"][0])))
    assert back.info["photoverse"] == "AI-generated, größte"


def test_the_version_is_read_where_mlflow_leaves_it(tmp_path):
    package = tmp_path / "model" / "artifacts" / "package"
    package.mkdir(parents=True)
    assert registered_as(package) == ("unregistered", "unregistered")
    (tmp_path / "model" / "registered_model_meta").write_text("model_name: photoverse\nmodel_version: '12'\n")
    assert registered_as(package) == ("12", "models:/photoverse/12")
