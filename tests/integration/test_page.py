"""The page in headless Chromium: real clicks, pictures, faults as words, at a desk and on a phone."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.inference import CardStore, inspect_picture
from components.portraits.world import portrait
from tests.factories import untrained_adapter

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER) and not os.environ.get("CI"),
    reason="no chromium and chromedriver here: apt-get install chromium chromium-driver",
)
PATIENCE_S = 240
RECEIVED = "#photo img[src*='/file=']"  # the server has it; before, the page shows its own copy
CAMERA_IS_ON = "const video = document.querySelector('#photo video'); return video && video.videoWidth > 0"
LOOPBACK_ONLY = "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


def listen_to_interrupts() -> None:
    """Undoes what a shell in the background does to its children: they would ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    from components.model import ModelConfig

    path = tmp_path_factory.mktemp("adapter") / "adapter.safetensors"
    return untrained_adapter(path, ModelConfig(base="components/portraits/base", patch_grid=2))


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "me.png"
    Image.fromarray(portrait(3, 0, 256).image_uint8).save(path)
    return path


@pytest.fixture(scope="module")
def served(adapter, tmp_path_factory):
    """`photoverse ui` in a process of its own: (address, folder of all runs)."""
    root = tmp_path_factory.mktemp("runs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "flows.cli", "ui", "--model", str(adapter), "--root", str(root),
               "--port", str(port), "--set", "batch.dials.num_inference_steps=3"]  # fmt: skip
    log = (root / "ui.log").open("w+")
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, preexec_fn=listen_to_interrupts
    )
    try:
        until = time.monotonic() + PATIENCE_S
        while f"PhotoVerse is at http://127.0.0.1:{port}" not in (root / "ui.log").read_text():
            assert process.poll() is None, (root / "ui.log").read_text()
            assert time.monotonic() < until, (root / "ui.log").read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}", root
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0  # Ctrl-C ends it: Gradio closes its server, and the command is done


class Page:
    """The page as somebody sees it who has a pointer and a keyboard."""

    def __init__(self, url, downloads, width, height):
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars",
                     f"--host-resolver-rules={LOOPBACK_ONLY}", "--use-fake-ui-for-media-stream",
                     "--use-fake-device-for-media-stream"):  # fmt: skip
            options.add_argument(word)
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.obstacle = ""
        self.browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.browser.get(url)
        self.find("#draw")

    def find(self, where):
        return self.until(lambda: next(iter(self.all(where)), None), where)

    def all(self, where):
        return self.browser.find_elements("css selector", where)

    def read(self, where, what="textContent"):
        """One attribute of all such elements, read in one go: the page may be making them anew."""
        script = "return [...document.querySelectorAll(arguments[0])].map(found => found[arguments[1]] || '')"
        return self.browser.execute_script(script, where, what)

    def until(self, ready, what):
        from selenium.common.exceptions import StaleElementReferenceException

        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            with suppress(StaleElementReferenceException):  # made anew between two looks
                found = ready()
                if found:
                    return found
            time.sleep(0.2)
        raise AssertionError(
            f"{what}: not seen in {PATIENCE_S} s; status: {self.status}; {self.complaints()}; {self.obstacle}"
        )

    @property
    def status(self):
        return " ".join(self.read("#status"))

    def click(self, where, which=0):
        """Clicks the element of that number, once it is there, enabled and under nothing else."""
        self.until(lambda: self.hit(where, which), f"{where} within reach")

    def hit(self, where, which):
        """Tries a click: the page may still be moving, or be making its elements anew."""
        from selenium.common import exceptions as of_selenium

        moving = (
            of_selenium.ElementClickInterceptedException,
            of_selenium.ElementNotInteractableException,
            of_selenium.StaleElementReferenceException,
        )
        try:
            element = self.all(where)[which]
            self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            if not element.is_enabled():
                return False
            element.click()
        except IndexError:
            return False
        except moving as obstacle:
            self.obstacle = str(obstacle.msg)
            return False
        return True

    def type(self, where, text):
        """Writes into a field and leaves it, without entering the next: a list would open over the page."""
        from selenium.webdriver.common.keys import Keys

        self.until(lambda: self.hit(where, 0), f"{where} within reach")
        field = self.browser.switch_to.active_element
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text)
        self.browser.execute_script("arguments[0].blur()", field)

    def upload(self, path):
        self.until(lambda: self.give(path), "a place for the photo")
        self.find(RECEIVED)

    def give(self, path):
        for place in self.all("#photo input[type=file]"):
            place.send_keys(str(path))
            return True
        return False

    def capture(self):
        """Takes a photo, as somebody does again when none has come after some seconds."""
        self.hit("#photo button[aria-label*='apture photo']", 0)
        until = time.monotonic() + 5
        while time.monotonic() < until and not self.all(RECEIVED):
            time.sleep(0.2)
        return False

    def complaints(self):
        """What the browser would print in red: also every address that it could not reach."""
        return [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def desk(served, tmp_path_factory):
    page = Page(served[0], tmp_path_factory.mktemp("downloads"), 1280, 1000)
    yield page
    page.browser.quit()


def test_what_is_missing_is_said_in_words(desk):
    desk.click("#draw")
    desk.until(lambda: "Add a photo" in desk.status, "a word on the missing photo")
    assert desk.all("#status [role=alert]")


def test_a_photo_without_a_face_is_said_in_words(desk, tmp_path):
    Image.new("RGB", (200, 200), "seagreen").save(tmp_path / "meadow.png")
    desk.upload(tmp_path / "meadow.png")
    desk.click("#draw")
    desk.until(lambda: "tick that the person" in desk.status, "a word on the consent")
    desk.click("#agreed input")
    desk.click("#draw")
    desk.until(lambda: "No face was found" in desk.status, "a word on the missing face")
    assert "Traceback" not in desk.browser.page_source
    desk.browser.refresh()
    desk.find("#draw")


def test_a_photo_and_words_become_pictures_with_their_recipe(desk, served, photo):
    import urllib.request

    desk.upload(photo)
    desk.click("#agreed input")
    desk.type("#prompt textarea", "a photo of S* on a blue background")
    desk.click("#draw")
    desk.until(lambda: "Done" in desk.status, "finished pictures")
    shown = desk.until(
        lambda: len(desk.all("#pictures .caption-label")) == 2 and desk.all("#pictures img"), "two"
    )
    captions = desk.read("#pictures .caption-label")
    assert all("seed" in caption for caption in captions), captions
    assert len(shown) >= 2
    links = {link for link in desk.read("#files a", "href") if link}
    pngs = [link for link in links if link.endswith(".png")]
    assert len(pngs) == 2, links
    recipes = json.load(urllib.request.urlopen(next(link for link in links if link.endswith("recipes.json"))))
    file = served[1] / "one.png"
    file.write_bytes(urllib.request.urlopen(pngs[0]).read())
    found = inspect_picture(file)
    assert found.recipe["prompt"] == "a photo of S* on a blue background"
    assert found.recipe in recipes.values()
    assert found.watermarked
    assert found.credentials["state"] == "valid"


def test_dials_and_the_photo_as_a_start_are_followed_and_earlier_pictures_stay(desk, photo):
    import urllib.request

    desk.click("#over-photo > button")
    desk.click("#over input")
    desk.type("#strength input[type=number]", "0.3")
    desk.click("#dials > button")
    for dial, value in (("sigma", "0.25"), ("guidance", "3.5"), ("steps", "10")):
        desk.type(f"#{dial} input[type=number]", value)
    desk.type("#seed input", "11")
    desk.click("#draw")
    names = ("photoverse-11-", "photoverse-12-", "recipes.json")

    def links():
        found = desk.read("#files a", "href")
        return [next((link for link in found if name in link), None) for name in names]

    desk.until(lambda: all(links()), "the pictures of seeds 11 and 12")
    first, _, recipes = links()
    values = json.load(urllib.request.urlopen(recipes))
    assert sorted(recipe["seed"] for recipe in values.values()) == [11, 12]
    dials = next(iter(values.values()))["dials"]
    assert (dials["sigma"], dials["guidance_scale"], dials["strength"]) == (0.25, 3.5, 0.3)
    assert dials["num_inference_steps"] == 10
    start = np.asarray(Image.open(photo).convert("RGB").resize((64, 64))).astype(float)
    drawn = np.asarray(Image.open(urllib.request.urlopen(first)).convert("RGB")).astype(float)
    assert np.corrcoef(start.ravel(), drawn.ravel())[0, 1] > 0.3  # three of ten steps away from it
    desk.click("#earlier > button")
    desk.until(lambda: len(desk.all("#history .thumbnail-item")) >= 4, "four pictures of this session")
    desk.click("#chosen > button")
    desk.click("#history .thumbnail-item", -1)  # the oldest
    desk.until(
        lambda: "blue background" in " ".join(desk.read("#recipe")), "the recipe of an earlier picture"
    )


def test_a_person_can_be_kept_and_drawn_without_the_photo(desk, served):
    desk.click("#keep button")
    desk.type("#person input, #person textarea", "ada")
    desk.type("#purpose input, #purpose textarea", "pictures of a test")
    desk.click("#keep-button")
    desk.until(lambda: "Kept, as card" in " ".join(desk.read("#keep-said")), "a kept card")
    kept = CardStore(served[1] / "people").all()
    assert [card.consent.person for card in kept] == ["ada"]
    desk.browser.refresh()
    desk.find("#draw")
    desk.click("#kept input")
    desk.click("#kept [role=option]:nth-of-type(2), #kept li:nth-of-type(2)")
    desk.click("#draw")
    desk.until(lambda: "Done" in desk.status, "pictures of the card")
    rows = CardStore(served[1] / "people").audit.rows("ada")
    assert [row.event for row in rows] == ["made", "used"]


def test_nothing_is_fetched_from_elsewhere(desk, served):
    script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    names = desk.browser.execute_script(script)
    assert names
    assert [name for name in names if not name.startswith((served[0], "data:", "blob:"))] == []
    assert [line for line in desk.complaints() if "ERR_NAME_NOT_RESOLVED" in line] == []


def test_a_phone_shows_it_in_one_column_and_takes_a_photo(served, tmp_path):
    page = Page(served[0], tmp_path, 390, 844)
    try:
        wide = lambda: page.browser.execute_script("return document.documentElement.scrollWidth")  # noqa: E731
        assert wide() <= 390
        boxes = [page.find(where).rect for where in ("#photo", "#status")]
        assert boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"]  # below, not beside
        assert page.find("#draw").rect["height"] >= 40  # a thumb finds it
        bottom = "return document.querySelector('#draw').getBoundingClientRect().bottom"
        assert page.browser.execute_script(bottom) <= 844  # without scrolling
        page.click("#draw")
        page.until(lambda: "Add a photo" in page.status, "a word on the missing photo")
        page.click("#photo button[aria-label*=amera]")
        page.click("#photo button:has(> .wrap)")  # may this page use the camera?
        page.until(lambda: page.browser.execute_script(CAMERA_IS_ON), "a picture of the camera")
        page.until(lambda: page.all(RECEIVED) or page.capture(), "a photo taken")
        page.click("#agreed input")
        page.click("#draw")
        page.until(lambda: "No face was found" in page.status, "a word on a photo without a face")
        for part in ("#over-photo", "#dials", "#earlier", "#chosen", "#keep"):
            page.click(f"{part} > button")
        assert wide() <= 390
    finally:
        page.browser.quit()
