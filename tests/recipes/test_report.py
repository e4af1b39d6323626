"""recipes/report.py, end to end; and its page in a browser, where there is one."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainers.finetune import finetune

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def reported(tmp_path_factory, compose):
    """A folder with the report of two real runs."""
    folder = tmp_path_factory.mktemp("outputs")
    for seed in (0, 1):
        run_dir = f"run_dir={folder / f'seed{seed}'}"
        finetune(compose("task=sst2", "data=sample", "backbone=tiny", "train.max_steps=4", f"seed={seed}", run_dir))
    command = [sys.executable, str(ROOT / "recipes" / "report.py"), f"runs={folder}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"2 finished runs: {folder / 'report' / 'report.html'}\n"
    return folder


def test_the_recipe_writes_tables_plots_and_a_page(reported):
    written = {
        str(file.relative_to(reported / "report")) for file in (reported / "report").rglob("*") if file.is_file()
    }
    assert {"report.html", "tables.md", "tables.tex", "tables/scores.csv", "tables/numbers.csv"} <= written
    assert {f"plots/sst2_learning.{ending}" for ending in ("png", "svg", "csv")} <= written


def test_the_page_has_each_run_s_command(reported):
    page = (reported / "report" / "report.html").read_text()
    details = re.search(r'id="details">(.*?)</script>', page, re.DOTALL)
    assert details is not None
    commands = [run["command"] for run in json.loads(details[1])["runs"]]
    plain = "python recipes/finetune.py task=sst2 backbone=tiny data=sample zero_shot=none"
    assert [command.split(" train.max_steps=4")[0] for command in commands] == [f"{plain} seed={n}" for n in (0, 1)]


def test_a_mistake_is_one_line(reported):
    command = [sys.executable, str(ROOT / "recipes" / "report.py")]
    done = subprocess.run(command, cwd=reported, capture_output=True, text=True, check=False)
    said = "error: give one of runs=DIR, a folder that your runs are below, and attention=[BACKBONE,...]\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.fixture
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser ({', '.join(BROWSERS)}) is installed")
    return found


@pytest.fixture
def show(browser, tmp_path):
    """What a browser makes of a page: its document, its console, and what the page asked the network for."""

    def run(text):
        page, net_log = tmp_path / "report.html", tmp_path / "net.json"
        page.write_text(text)
        command = [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"),
            *("--enable-logging=stderr", "--v=0", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *("--virtual-time-budget=5000", f"--log-net-log={net_log}", "--dump-dom", page.as_uri()),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        params = [event.get("params", {}) for event in json.loads(net_log.read_text())["events"]]
        # a browser's own requests, such as for updates, have no page as their initiator
        own = [one for one in params if "url" in one and one.get("initiator", "").startswith(("file:", "null"))]
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return done.stdout, console, [one["url"] for one in own if not one["url"].startswith(("file:", "data:"))]

    return run


# Every run's details are opened, and a heading is clicked.
HANDS = """<script>
document.querySelectorAll("details").forEach((one) => { one.open = true; });
document.querySelector("#run-list th.right").click();
</script></body>"""
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


@pytest.mark.browser
def test_a_browser_shows_the_numbers_and_asks_the_network_for_nothing(reported, show):
    text, n = POLICY.subn("", (reported / "report" / "report.html").read_text())  # nothing is held back by it
    assert n == 1
    document, console, asked = show(text.replace("</body>", HANDS))
    assert (console, asked) == ([], [])
    for seed in (0, 1):
        result = json.loads((reported / f"seed{seed}" / "result.json").read_text())
        assert f"<td>{json.dumps(result['primary']['value'])}</td>" in document
    assert document.count("<pre>python recipes/finetune.py task=sst2 backbone=tiny data=sample") == 2
    assert 'aria-sort="ascending"' in document


@pytest.mark.browser
def test_the_policy_stops_what_is_not_the_page_s_own(reported, show):
    foreign = '<script>document.title = "foreign";</script><img src="http://example.org/x.png"></body>'
    text = (reported / "report" / "report.html").read_text().replace("</body>", foreign)
    document, console, asked = show(text)
    assert "<title>foreign" not in document
    assert asked == []
    assert len(console) == 2
    assert all("Content Security Policy" in line for line in console)
    assert 'tabindex="0"' in document  # the page's own script has run
    assert show(POLICY.sub("", text))[2] == ["http://example.org/x.png"]
