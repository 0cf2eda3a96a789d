"""The page in a real browser: nothing asked of anybody, no error, nothing wider than a telephone."""

import html
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from stages.evaluate import report
from tests.unit.pipelines import Pipeline

OWN = "not an origin"  # what the browser asks for itself
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-background-networking")
PROBE = """<script>addEventListener("load", () => {
  document.querySelectorAll("details").forEach((one) => { one.open = true })
  parent.document.title = document.documentElement.scrollWidth + " of " + innerWidth
})</script>"""


@dataclass(frozen=True)
class Shown:
    """What a browser made of a page."""

    dom: str
    requests: list[str]  # that the page asked for
    console: list[str]


class Browser:
    """A headless Chromium with a profile of its own, which reaches nobody."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program, self.folder = program, folder

    def show(self, page: str) -> Shown:
        """Open a page from a file and wait until it is drawn."""
        path, log = self.folder / "page.html", self.folder / "net.json"
        path.write_text(page, encoding="utf-8")
        offline = (f"--user-data-dir={self.folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND", f"--log-net-log={log}")
        command = [self.program, *QUIET, *offline, "--enable-logging=stderr", "--dump-dom", path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, stdin=subprocess.DEVNULL)
        asked = [event.get("params", {}) for event in json.loads(log.read_text(encoding="utf-8"))["events"]]
        requests = [one["url"] for one in asked if "url" in one and one.get("initiator", OWN) != OWN]
        return Shown(done.stdout, requests, [line for line in done.stderr.splitlines() if "CONSOLE" in line])

    def width(self, page: str, width: int) -> str:
        """Tell how wide a page is in a window of some width, all of it unfolded."""
        inside = html.escape(page.replace("</body>", f"{PROBE}</body>"))
        dom = self.show(f'<title></title><iframe width="{width}" height="900" style="border: 0" srcdoc="{inside}"></iframe>').dom
        return dom.split("<title>", 1)[1].split("</title>", 1)[0]


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no program chromium in PATH: the report was not seen in a browser")
    return Browser(program, tmp_path)


def test_the_report_asks_nobody_and_has_no_error(accepted: Pipeline, browser: Browser) -> None:
    shown = browser.show(report.draw(accepted.addresses()))

    assert (shown.requests, shown.console) == ([], [])
    assert shown.dom.count("<svg") > 5


@pytest.mark.parametrize("width", [390, 1400])
def test_the_report_is_as_wide_as_the_window(accepted: Pipeline, browser: Browser, width: int) -> None:
    assert browser.width(report.draw(accepted.addresses()), width) == f"{width} of {width}"


def test_what_the_browser_would_have_told(browser: Browser) -> None:
    """A picture from elsewhere, an error, a line that is too wide: each is seen."""
    elsewhere = "http://127.0.0.1:9/x.png"
    shown = browser.show(f'<img src="{elsewhere}"><script>undefined.x</script>')

    assert shown.requests == [elsewhere]
    assert len(shown.console) == 1
    assert browser.width('<body style="margin: 0"><div style="width: 500px">x</div></body>', 390) == "500 of 390"
