"""Runs as tables (Markdown, LaTeX, CSV), plots (PNG, SVG) and one page, beside the papers' numbers; or attention.

python recipes/report.py runs=outputs/finetune
python recipes/report.py runs=outputs output=outputs/report
python recipes/report.py runs=outputs/finetune reference.optim.lr=1e-5
python recipes/report.py 'attention=[gpt1,bert_base]' layer=5 'text="The film was not bad at all."'
"""

from trainers.config import ReportConfig
from trainers.launch import recipe


@recipe("report", ReportConfig)
def main(config: ReportConfig) -> None:
    """Write the report or the pictures, and say where."""
    if config.attention:
        from trainers.reports.attention import report_attention

        report_attention(config)
    else:
        from trainers.reports.report import report

        report(config)


if __name__ == "__main__":
    main()
