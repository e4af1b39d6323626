"""The config of recipes/predict.py."""

from dataclasses import dataclass

from trainers.config.file_format import check_file_format
from trainers.config.need import need


@dataclass
class PredictConfig:
    """What to do with finished runs: label new text, or write GLUE's submission."""

    run: str | None = None  # a finished run's folder
    # CSV, TSV, JSON lines, Parquet, ... with the task's columns; FILE.txt with a text in each line; - is stdin
    input: str | None = None
    split: str | None = None  # in place of input: a split of the run's own data
    encoding: str | None = None  # of input: utf-8, cp1252, ...; null: UTF-8, or what the byte order mark says
    delimiter: str | None = None  # of CSV and TSV: comma, semicolon, tab, bar or a character; null: from the content
    quoting: str = "auto"  # of CSV and TSV: standard (""), backslash (\\"), none; auto: from the content
    output: str = "-"  # FILE.jsonl, FILE.csv or FILE.tsv, with metrics in FILE.metrics.json; - is JSON lines on stdout
    # Write the probability of each class: p_CLASS columns in CSV and TSV, which otherwise have only the predicted
    # class's; false leaves them out of JSON lines, too
    probabilities: bool | None = None
    glue: str | None = None  # the zip to write for gluebenchmark.com
    runs: str | None = None  # a folder with finished runs below it, for glue
    partial: bool = False  # write the zip even where tasks have no run
    eval_tokens: int = 8192  # padded tokens in a batch; of a row without padding at most 2,048

    def __post_init__(self) -> None:
        """Either a run and its input, or a zip and its runs."""
        check_file_format(self.encoding, self.delimiter, self.quoting)
        if self.glue is not None:
            need(self.runs is not None and self.run is None, "glue=FILE.zip goes with runs=DIR, the runs to submit")
        else:
            need(self.run is not None, "give run=DIR with input=FILE (or -), or glue=FILE.zip with runs=DIR")
            need(
                (self.input is None) != (self.split is None),
                "run=DIR goes with one of input=FILE (- for stdin) and split=NAME",
            )
            need(
                not self.output.lower().endswith((".xlsx", ".xls", ".parquet", ".json", ".gz")),
                f"output={self.output}: predictions are written as .jsonl, .csv or .tsv",
            )
