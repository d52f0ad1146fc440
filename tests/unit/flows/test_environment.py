import os
from pathlib import Path

from flows import environment


def test_a_fresh_clone_gets_the_folder_that_prefect_writes_to(tmp_path, monkeypatch):
    """Prefect makes no parents: without runs/ its server ends at the start."""
    monkeypatch.setattr(environment, "PROJECT", tmp_path)
    monkeypatch.setenv("PREFECT_HOME", "")  # so that it is put back as it was
    monkeypatch.delenv("PREFECT_HOME")
    environment.prepare_environment()
    assert Path(os.environ["PREFECT_HOME"]) == tmp_path / "runs" / "prefect"
    assert (tmp_path / "runs" / "prefect").is_dir()


def test_a_home_that_the_user_has_set_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "mine"))
    environment.prepare_environment()
    assert os.environ["PREFECT_HOME"] == str(tmp_path / "mine")
