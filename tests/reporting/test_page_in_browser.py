"""The page in a real browser: at desktop and phone width, light and dark."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from resnet_jax.reporting import write_report

pytestmark = pytest.mark.browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-quic"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    webdriver = pytest.importorskip("selenium.webdriver")
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no Chromium with its chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def page(degradation: Path, write_run, write_sweep) -> Path:
    """The report of a sweep with one of everything, and names that try to break out."""
    write_run(degradation, "plain-110", 0, 0.9, status="diverged")
    write_run(degradation, "<script>console.error('escaped')</script>-20", 0, name="evil")
    path = degradation / "plain-20-seed0" / "metrics.jsonl"
    path.write_text(path.read_text()[:-9])
    names = {path.name: {} for path in degradation.iterdir()}
    write_sweep(degradation, {**names, "plain-110-seed1": {"model.name": "plain-110", "seed": 1}})
    return write_report([degradation], degradation / "report").index


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_shows_finding_figure_and_tables(browser, page: Path, width: int, scheme: str):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(page.as_uri())
    see = browser.execute_script

    assert "plain-110 diverged in 1 of 1 seed" in see(
        "return document.querySelector('#finding').innerText"
    )
    panels = see(
        "return [...document.querySelectorAll('#figure svg')].map(s => {"
        "const box = s.getBoundingClientRect(); return [box.left, box.right, box.height]})"
    )
    assert len(panels) == 8
    assert all(left >= 0 and right <= width and height > 150 for left, right, height in panels)
    assert see("return document.querySelectorAll('tbody tr').length") >= 20
    assert see("return document.documentElement.scrollWidth") <= width
    ground, ink = (
        see(f"return getComputedStyle(document.body).{name}")
        for name in ("backgroundColor", "color")
    )
    assert (_lightness(ground) > _lightness(ink)) == (scheme == "light")
    letters = see("return getComputedStyle(document.querySelector('#figure svg text')).fill")
    assert abs(_lightness(letters) - _lightness(ground)) > 100
    assert browser.get_log("browser") == []


def _lightness(colour: str) -> float:
    """Of "rgb(r, g, b)", from 0 to 255."""
    return sum(map(float, colour[colour.index("(") + 1 : -1].split(",")[:3])) / 3
