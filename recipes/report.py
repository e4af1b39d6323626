"""Runs as tables (Markdown, LaTeX, CSV), plots (PNG, SVG) and one page, beside the papers' numbers.

python recipes/report.py runs=outputs/finetune
python recipes/report.py runs=outputs output=outputs/report
python recipes/report.py runs=outputs/finetune reference.optim.lr=1e-5
"""

from trainers.config import ReportConfig
from trainers.launch import recipe


@recipe("report", ReportConfig)
def main(config: ReportConfig) -> None:
    """Write the report, and say where."""
    from trainers.reports.report import report

    report(config)


if __name__ == "__main__":
    main()
