import pytest
import ray

from components.core import RuntimeConfig, ray_session

LATE = "The current node timed out during startup. This could happen because some of the raylet failed."


@pytest.fixture
def starts(monkeypatch):
    """Ray's `init` fails as often as there are errors left; returns (errors left, addresses asked for)."""
    errors, asked = [], []

    def init(address, **_):
        asked.append(address)
        if errors:
            raise errors.pop(0)

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    return errors, asked


def test_a_local_node_that_came_too_late_is_started_once_more(starts):
    errors, asked = starts
    errors.append(Exception(LATE))
    with ray_session(RuntimeConfig()):
        pass
    assert asked == ["local", "local"]


def test_twice_too_late_is_an_error(starts):
    errors, asked = starts
    errors.extend([Exception(LATE), Exception(LATE)])
    with pytest.raises(Exception, match="timed out during startup"), ray_session(RuntimeConfig()):
        pass
    assert asked == ["local", "local"]


@pytest.mark.parametrize(("address", "text"), [("local", "no space left"), ("auto", LATE)])
def test_other_faults_and_clusters_are_not_tried_again(starts, address, text):
    errors, asked = starts
    errors.append(Exception(text))
    with pytest.raises(Exception, match=text.split()[0]), ray_session(RuntimeConfig(ray_address=address)):
        pass
    assert asked == [address]
