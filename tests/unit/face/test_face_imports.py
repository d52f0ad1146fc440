import subprocess
import sys


def test_numpy_users_need_no_torch() -> None:
    script = (
        "import sys; from components.face import FaceConfig, align_face, load_detector, load_masker;"
        "load_detector(FaceConfig()); load_masker(FaceConfig());"
        "print(sorted({'torch', 'transformers', 'insightface'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    import components.face as room

    for name in room.__all__:
        assert getattr(room, name) is not None
