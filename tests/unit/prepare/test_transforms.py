import numpy as np
import pytest

from components.face import Face
from components.prepare.transforms import Reject, choose_faces


def face(size: float, x: float = 0) -> Face:
    return Face(np.array([x, 0, x + size, size + 5], np.float32), np.zeros((5, 2), np.float32), 0.9)


def test_policies_for_several_faces() -> None:
    faces = [face(60), face(40), face(10)]
    assert choose_faces(faces, "largest", 24) == faces[:1]
    assert choose_faces(faces, "all", 24) == faces[:2]


@pytest.mark.parametrize(
    ("faces", "policy", "code"),
    [
        ([], "all", "no_face"),
        ([face(23)], "largest", "tiny_face"),
        ([face(60), face(40)], "reject", "several_faces"),
    ],
)
def test_photos_whose_faces_do_not_do(faces: list[Face], policy: str, code: str) -> None:
    with pytest.raises(Reject) as caught:
        choose_faces(faces, policy, 24)
    assert caught.value.reason == code


def test_small_faces_in_the_background_do_not_make_several() -> None:
    main, behind = face(60), face(10)
    assert choose_faces([main, behind], "reject", 24) == [main]
