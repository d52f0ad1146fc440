"""What a served model finds around it is said by the environment."""

import pytest

from components.registry.surroundings import read_surroundings


def test_without_an_environment_no_cards_are_known_and_pictures_are_signed():
    around = read_surroundings({})
    assert around.cards is None
    assert around.provenance.sign
    assert around.provenance.key_folder is None


def test_the_root_holds_people_and_the_key(tmp_path):
    around = read_surroundings({"PHOTOVERSE_ROOT": str(tmp_path)})
    assert around.cards.folder == tmp_path / "people"
    assert around.provenance.key_folder == tmp_path / "credentials"


def test_settings_of_pictures_may_be_laid_over(tmp_path):
    settings = {"PHOTOVERSE_PROVENANCE": "{watermark_key: ours, credentials: /keys}"}
    around = read_surroundings(settings | {"PHOTOVERSE_ROOT": str(tmp_path)})
    assert around.provenance.watermark_key == "ours"
    assert str(around.provenance.key_folder) == "/keys"
    assert not read_surroundings({"PHOTOVERSE_PROVENANCE": "{sign: false}"}).provenance.sign


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"PHOTOVERSE_ROOT": "/nowhere/at/all"}, "there is no folder /nowhere/at/all"),
        ({"PHOTOVERSE_PROVENANCE": "sign"}, "expected settings"),
        ({"PHOTOVERSE_PROVENANCE": "{signed: true}"}, "signed"),
    ],
)
def test_what_cannot_be_is_refused(environment, words):
    with pytest.raises(ValueError, match=words):
        read_surroundings(environment)
