"""A finished run for a reader: baselines, zero-shot and fine-tuned scores in one table, or a perplexity."""

import math
from pathlib import Path
from typing import Any


def summary(result: dict[str, Any], folder: Path) -> None:
    """Print what a run found; result is what result.json holds."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=min(Console().width, 110) if Console().is_terminal else 110)
    ablation = f" · {result['ablation']}" if result.get("ablation", "none") != "none" else ""
    title = f"{result['data']['name']} · {result['backbone']}{ablation} · seed {result['seed']}"
    table = Table(title=title, title_justify="left")
    zero_shot, tuned = result["zero_shot"], result.get("finetune", {})
    stage_zero = zero_shot["method"] != "none"
    baselines = _baselines(result)
    headings = ["split", "metric", *(name.replace("_", "-") for name in baselines)]
    headings += [*(["zero-shot [95 %]"] if stage_zero else []), *(["fine-tuned"] if tuned else [])]
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("split", "metric") else "right")
    for split, metric in _cells(zero_shot, tuned):
        row = [split, metric]
        scores = result["baselines"].get(split, {}).get(metric, {})
        row += [_percent(scores[name]) if name in scores else "" for name in baselines]
        if stage_zero:
            row += [_zero_shot_cell(zero_shot, split, metric)]
        if tuned:
            row += [_percent(tuned.get(split, {}).get(metric))]
        table.add_row(*row, style="bold" if _is_primary(result, split, metric) else None)
    console.print(table)
    for line in [*_zero_shot_lines(zero_shot), *(_train_lines(result) if tuned else [])]:
        console.print(line)
    console.print(f"run folder: {folder}", soft_wrap=True)


def pretraining_summary(result: dict[str, Any], folder: Path) -> None:
    """Print what a pretraining run found."""
    from rich.console import Console

    held_out, train = result["held_out"], result["train"]
    words = held_out["perplexity_per_word"]
    console = Console(width=110)
    console.print(
        f"{result['backbone']}, {train['parameters']:,} parameters: {train['steps']} updates, {train['tokens']:,} "
        f"tokens in {train['seconds']:.0f} s ({train['tokens_per_second']:.0f} tokens/s)"
    )
    console.print(
        f"held-out perplexity {held_out['perplexity']:.2f} a token"
        + (f", {words:.2f} a word" if words is not None else " that is masked")
        + f" ({held_out['targets']:,} predicted)"
    )
    console.print(f"run folder: {folder}; the model is in {folder / 'model'}", soft_wrap=True)


def lm_summary(result: dict[str, Any], folder: Path) -> None:
    """Print what a run of objective=lm found: perplexities and continuations, before and after."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=110)
    before, after, train = result["zero_shot"]["held_out"], result["finetune"]["held_out"], result["train"]
    table = Table(title=f"lm · {result['backbone']} · seed {result['seed']}", title_justify="left")
    for heading in ("held-out perplexity", "zero-shot", "fine-tuned"):
        table.add_column(heading, justify="left" if heading == "held-out perplexity" else "right")
    for name, key in (("a token", "perplexity"), ("a word", "perplexity_per_word")):
        table.add_row(name, *(f"{each[key]:.2f}" if each[key] is not None else "" for each in (before, after)))
    console.print(table)
    console.print(
        f"{train['steps']} updates, {train['epochs']:.2f} epochs, {train['tokens']:,} tokens in "
        f"{train['seconds']:.0f} s ({train['tokens_per_second']:.0f} tokens/s); {train['trained_parameters']:,} of "
        f"{train['parameters']:,} parameters trained"
    )
    console.print(f"held out: {result['held_out']} ({after['tokens']:,} tokens)", markup=False, soft_wrap=True)
    for each in result["continuations"]:
        console.print(Text.assemble("\n", (f"… {_one_line(each['prompt'])}", "bold")))
        for name, key in (("zero-shot", "zero_shot"), ("fine-tuned", "finetune"), ("the text", "held_out")):
            console.print(Text(f"  {name + ':':<11} {_one_line(each[key])}"))
    console.print(f"\nrun folder: {folder}; the model is in {folder / 'model'}", soft_wrap=True)


def perplexity_summary(result: dict[str, Any], folder: Path) -> None:
    """Print what a text's perplexity is."""
    from rich.console import Console

    found, console = result["zero_shot"]["text"], Console(width=110)
    words = found["perplexity_per_word"]
    console.print(
        f"{result['backbone']}: perplexity {found['perplexity']:.2f} a token"
        + (f", {words:.2f} a word" if words is not None else " that is masked")
        + f" ({found['targets']:,} predicted, in blocks of {result['n_ctx']})"
    )
    console.print(f"run folder: {folder}", soft_wrap=True)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cells(zero_shot: dict[str, Any], tuned: dict[str, Any]) -> list[tuple[str, str]]:
    """Every split and metric that has a number."""
    splits = list(dict.fromkeys([*tuned, *zero_shot.get("intervals", {})]))
    return [(split, metric) for split in splits for metric in tuned.get(split) or zero_shot[split]]


def _baselines(result: dict[str, Any]) -> list[str]:
    """The baselines that the result has a score of, the weakest first."""
    names = {name for split in result["baselines"].values() for scores in split.values() for name in scores}
    return [name for name in ("chance", "majority", "bag_of_words") if name in names]


def _is_primary(result: dict[str, Any], split: str, metric: str) -> bool:
    primary = result["primary"]
    return (split, metric) == (primary["split"], primary["metric"])


def _percent(value: float | None) -> str:
    return "undefined" if value is None or not math.isfinite(value) else f"{100 * value:.2f}"


def _zero_shot_cell(zero_shot: dict[str, Any], split: str, metric: str) -> str:
    if metric not in zero_shot.get(split, {}):
        return ""
    interval = zero_shot["intervals"][split].get(metric)
    shown = _percent(zero_shot[split][metric])
    if interval is not None and all(bound is not None and math.isfinite(bound) for bound in interval):
        shown += f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
    return f"{shown} {'≈' if at_chance(zero_shot, split, metric) else ' '}"


def at_chance(zero_shot: dict[str, Any], split: str, metric: str) -> bool:
    """Whether a zero-shot number's interval holds that of a guess, or there are too few rows for an interval."""
    interval, guess = zero_shot["intervals"][split].get(metric), zero_shot["chance"][split].get(metric)
    if interval is None or guess is None:
        return False  # a metric of the user's own
    if any(bound is None or not math.isfinite(bound) for bound in interval):
        return True  # too few rows, or constant answers
    return interval[0] <= guess <= interval[1]


def _zero_shot_lines(zero_shot: dict[str, Any]) -> list[str]:
    if zero_shot["method"] == "none":
        return [f"zero-shot: none ({zero_shot['reason']})"]
    n = len(zero_shot["templates"])
    rows = ", ".join(
        f"{each['scored']} {name}" + (f" (a sample of {each['of']})" if each["scored"] < each["of"] else "")
        for name, each in zero_shot["rows"].items()
    )
    tied = {name: sum(each) for name, each in zero_shot["ties"].items() if any(each)}
    lines = [
        f"zero-shot: {zero_shot['method']}, {zero_shot['normalization']}, "
        f"{n} template{'s' if n > 1 else ''} (version {zero_shot['template_version']}); rows: {rows}; "
        f"{zero_shot['examples_per_second']:.1f} examples/s"
    ]
    if cut := ", ".join(f"{count} {name}" for name, count in zero_shot["cut_examples"].items() if count):
        lines.append(f"zero-shot prompts with a text cut to fit the context: {cut}")
    if tied:
        each = ", ".join(f"{count} of {n * zero_shot['rows'][name]['scored']} {name}" for name, count in tied.items())
        lines.append(f"zero-shot ties between best candidates: {each}; a tie among k counts 1/k in accuracy")
    if n > 1 and zero_shot["spread"]:
        split = next(iter(zero_shot["spread"]))
        metric = zero_shot["primary"]
        spread = zero_shot["spread"][split].get(metric)
        if spread:
            lines.append(
                f"{split} {metric} over templates: {_percent(spread['least'])} to {_percent(spread['greatest'])}"
            )
    if any(at_chance(zero_shot, split, metric) for split, each in zero_shot["intervals"].items() for metric in each):
        lines.append("≈ not distinguishable from chance: the 95 % interval over examples holds it, or there is none")
    return lines


def _train_lines(result: dict[str, Any]) -> list[str]:
    train, data = result["train"], result["data"]
    rows = ", ".join(f"{count} {name}" for name, count in data["rows"].items())
    lines = [
        f"{train['steps']} updates, {train['epochs']:g} epochs in {train['seconds']:.0f} s: "
        f"{train['examples_per_second']:.1f} examples/s, {train['tokens_per_second']:.0f} tokens/s, "
        f"{100 * train['padding_fraction']:.1f} % padding",
        f"rows: {rows} ({data['source']}); cut to fit the context: {sum(data['cut_examples'].values())}",
    ]
    if tied := ", ".join(f"{count} of {data['rows'][name]} {name}" for name, count in result["ties"].items() if count):
        lines.append(f"ties between best classes: {tied} rows; a tie among k classes counts 1/k in accuracy")
    if left_out := data["unlabelled_train_rows_left_out"]:
        lines.append(f"train rows without a label, left out: {left_out}")
    if result["degenerate"]:
        lines.append(f"[bold red]degenerate run:[/] {result['degenerate_reason']}")
    return lines
