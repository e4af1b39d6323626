"""The report of many runs: seconds of recipes/report.py, and until a browser shows its page and answers.

    python tests/benchmarks/reports.py --runs 500

README.md says what the runs are and what is timed.
"""

import argparse
import itertools
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TASKS = ("sst2", "cola", "mrpc", "rte", "qnli")
ABLATIONS = ("none", "no_aux_lm", "no_pretraining", "lstm")
SEEDS = range(5)
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
# Milliseconds: from the start of the navigation until the page is shown, then of what a reader does.
PROBE = """<script>
addEventListener("load", () => requestAnimationFrame(() => requestAnimationFrame(() => {
  const found = { shown: performance.now() };
  const timed = (name, act) => {
    const began = performance.now();
    act();
    document.body.getBoundingClientRect();
    found[name] = performance.now() - began;
  };
  const list = document.getElementById("run-list");
  list.scrollIntoView();
  timed("sort", () => list.tHead.querySelector("th.right").click());
  const filter = document.getElementById("filter");
  filter.value = "cola";
  timed("filter", () => filter.dispatchEvent(new Event("input")));
  console.log("PROBE " + JSON.stringify(found));
})));
</script></body>"""


def run(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds by the clock and of computing that a command of ours takes."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    computing = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, computing


def make_runs(folder: Path, n: int) -> Path:
    """A real run of each task, and copies of it with other learning rates, ablations and seeds written into them."""
    runs = folder / "runs"
    for task in TASKS:
        typed = [f"task={task}", "data=sample", "backbone=tiny", "train.max_steps=10", f"run_dir={folder / task}"]
        run([str(ROOT / "recipes" / "finetune.py"), *typed], folder)
    rates = range(1, 1 + -(-n // (len(TASKS) * len(ABLATIONS) * len(SEEDS))))
    places = itertools.product(rates, TASKS, ABLATIONS, SEEDS)
    for rate, task, ablation, seed in itertools.islice(places, n):
        copy = runs / task / ablation / f"rate{rate}" / f"seed{seed}"
        shutil.copytree(folder / task, copy, ignore=shutil.ignore_patterns("model"))
        config = (copy / "config.yaml").read_text()
        for key, value in {"seed": seed, "ablation": ablation, "run_dir": copy, "  lr": f"{rate}.0e-05"}.items():
            config = re.sub(rf"^{key}: .*$", f"{key}: {value}", config, count=1, flags=re.MULTILINE)
        (copy / "config.yaml").write_text(config)
        result = json.loads((copy / "result.json").read_text()) | {"seed": seed, "ablation": ablation}
        (copy / "result.json").write_text(json.dumps(result))
    return runs


def shown(browser: str, page: Path, folder: Path) -> dict[str, float]:
    """What the probe has found, in a browser started for it."""
    probed = folder / "probed.html"
    probed.write_text(POLICY.sub("", page.read_text()).replace("</body>", PROBE))
    command = [
        *(browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"),
        *("--enable-logging=stderr", "--v=0", "--window-size=1400,1000", "--timeout=60000"),
        *(f"--screenshot={folder / 'page.png'}", probed.as_uri()),
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = re.search(r"PROBE (\{.*?\})", told)
    if found is None:
        sys.exit(f"the page has said nothing:\n{told[-2000:]}")
    return json.loads(found[1])


def main() -> None:
    """The report once, the page several times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5, help="of the browser")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        runs = make_runs(folder, args.runs)
        clock, computing = run([str(ROOT / "recipes" / "report.py"), f"runs={runs}"], folder)
        page = runs / "report" / "report.html"
        print(
            f"report of {args.runs} runs: {clock:.1f} s, {computing:.1f} s of computing; {page.stat().st_size:,} bytes"
        )
        browser = next(filter(None, map(shutil.which, BROWSERS)), None)
        if browser is None:
            sys.exit(f"no browser ({', '.join(BROWSERS)}) is installed")
        rounds = [shown(browser, page, folder) for _ in range(args.rounds)]
        for name in rounds[0]:
            each = [one[name] for one in rounds]
            print(f"{name}: {statistics.median(each):.0f} ms ({min(each):.0f} to {max(each):.0f})")


if __name__ == "__main__":
    main()
