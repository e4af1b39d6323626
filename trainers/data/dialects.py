"""The delimiter and quoting of CSV and TSV files, found from their content; what is ambiguous is an error."""

import re
from itertools import islice

from heads.errors import InputError
from trainers.config.file_format import DELIMITERS
from trainers.data.delimited import DelimitedFile, Header, misfit, parse
from trainers.data.text_files import FileOptions, TextFile

NAMES = {character: name for name, character in DELIMITERS.items()}
SAMPLE = 1000  # lines from which the delimiter is found
SPACED = re.compile(r' +".*"\s*', re.DOTALL)
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # Excel's, above the header


def find_dialect(file: TextFile, ending: str, options: FileOptions, notes: list[str]) -> DelimitedFile:
    """The delimiter and quoting of a file, from its content unless options say them.

    Raises:
        InputError: they are ambiguous, or a row does not have the header's fields.
    """
    usual = "\t" if ending == ".tsv" else ","
    first = next(iter(file.lines()), "")
    stated = SEPARATOR_LINE.fullmatch(first)
    skipped = int(stated is not None)
    if options.delimiter is not None:
        delimiter = DELIMITERS.get(options.delimiter, options.delimiter.replace("\\t", "\t"))
    elif stated is not None:
        delimiter = stated[1]
    else:
        delimiter = _find_delimiter(file, usual, options)
    if delimiter != usual and options.delimiter is None:
        notes.append(f"delimiter {NAMES.get(delimiter, repr(delimiter))}")
    found = _find_quoting(file, delimiter, skipped, options, notes)
    header = found.header
    if found.problem is not None:
        raise InputError(f"{found.problem}: {_remedy(found, options)}")
    if found.quoting == "standard" and options.quoting == "auto" and _has_spaced_quotes(found):
        _check_spaced_quotes(found)
    for index in header.unnamed:
        notes.append(f"column {index + 1} has no name and is ignored")
    return found


def _remedy(found: DelimitedFile, options: FileOptions) -> str:
    name = NAMES.get(found.delimiter, "delimiter")
    if options.quoting == "auto" and any('\\"' in line for line in found.file.lines()):
        escaped = DelimitedFile(found.file, found.delimiter, "backslash", found.skipped)
        if escaped.problem is None:
            return f'set {options.prefix}quoting=backslash, which reads \\" as a quote'
    if found.quoting == "standard" and _has_spaced_quotes(found):
        return f"delete the spaces between a {name} and a quote"
    if found.quoting == "none":
        return f"mend the rows; if the file has fields in quotes, set {options.prefix}quoting=standard"
    above = "if the header is not the first line, delete the lines above it; else " if _has_one_name(found) else ""
    return (
        f"{above}put a field that holds a {name}, a quote or a line break in quotes, and double the quotes inside it "
        f"({options.prefix}quoting=none reads quotes as text)"
    )


def _has_one_name(found: DelimitedFile) -> bool:
    try:
        return len(found.header.names) == 1
    except InputError:
        return False


def _has_spaced_quotes(found: DelimitedFile) -> bool:
    return any(f'{found.delimiter} "' in line for line in found.file.lines())


def _check_spaced_quotes(found: DelimitedFile) -> None:
    """Make sure that no column has a space before the quotes of all its fields, which makes the quotes text.

    Raises:
        InputError: one has.
    """
    spaced = {name: index for name, index in found.header.columns}
    n_rows = 0
    for _, fields in found.rows():
        n_rows += 1
        spaced = {name: index for name, index in spaced.items() if SPACED.fullmatch(fields[index])}
        if not spaced:
            return
    for name in spaced if n_rows else ():
        raise InputError(
            f"all fields of column '{name}' have a space before their quotes: delete the spaces between a "
            f"{NAMES.get(found.delimiter, 'delimiter')} and a quote"
        )


def _find_delimiter(file: TextFile, usual: str, options: FileOptions) -> str:
    """The delimiter that splits the header, and gives each row of a sample as many fields."""
    lines = list(islice(file.lines(), SAMPLE))
    splits = {delimiter: _fits(lines, delimiter) for delimiter in DELIMITERS.values()}
    candidates = {delimiter: fits for delimiter, fits in splits.items() if fits is not None}
    if list(candidates) in ([], [usual]):
        return usual
    fitting = [delimiter for delimiter, fits in candidates.items() if fits]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting and usual in candidates:
        return usual
    if not fitting and len(candidates) == 1 and not _is_one_column(lines, usual):
        return next(iter(candidates))
    if not fitting:
        return usual
    raise InputError(
        f"fields may be separated by {' or '.join(NAMES[one] for one in fitting)}: set "
        f"{options.prefix}delimiter={NAMES[fitting[0]]} (or {', '.join(NAMES[one] for one in fitting[1:])})"
    )


def _fits(lines: list[str], delimiter: str) -> bool | None:
    """Whether rows of a sample have as many fields as the header; None if the header has one field."""
    found = []
    for quoting in ("standard", "none"):
        rows: list[list[str]] = []
        try:
            rows.extend(fields for _, fields in parse(lines, delimiter, quoting))
        except InputError:
            if len(lines) < SAMPLE:
                continue  # otherwise the sample may end inside of quotes
        if len(lines) == SAMPLE:
            rows = rows[:-1]
        if rows and len(rows[0]) > 1:
            found.append(
                all(misfit(row, _counts(rows[0])) is None for row in rows[1:] if len(row) > 1 or row[0].strip())
            )
    return any(found) if found else None


def _counts(header: list[str]) -> Header:
    """How many fields rows below a header may have; its names are not checked."""
    named = [index for index, name in enumerate(header) if name.strip()]
    return Header([], len(header), named[-1] + 1 if named else len(header), [])


def _is_one_column(lines: list[str], delimiter: str) -> bool:
    return not any(delimiter in line for line in lines)


def _find_quoting(
    file: TextFile, delimiter: str, skipped: int, options: FileOptions, notes: list[str]
) -> DelimitedFile:
    """The file with the quoting that its content has.

    Raises:
        InputError: all fields of a column are in quotes, which may be the file's or the text's.
    """
    if options.quoting != "auto":
        return DelimitedFile(file, delimiter, options.quoting, skipped)
    standard, none = (DelimitedFile(file, delimiter, quoting, skipped) for quoting in ("standard", "none"))
    usual = none if delimiter == "\t" else standard
    if not any(line.startswith('"') or f'{delimiter}"' in line for line in file.lines()):
        return usual
    if standard.quotes_header:
        found = standard
    elif standard.problem is None:
        found = standard if usual is standard or _is_quoted(none, options) else none
    elif none.problem is None and not _quotes_columns(none, usual is none):
        found = none
    else:
        found = usual if none.problem is not None else standard
    if found is not usual:
        notes.append("fields in quotes" if found is standard else "quotes are read as text")
    return found


def _in_quotes(field: str) -> bool:
    return len(field) > 1 and field.startswith('"') and field.endswith('"')


def _is_quoted(none: DelimitedFile, options: FileOptions) -> bool:
    """Whether quotes around fields are the file's, in a file that standard quoting can read.

    They are if there is no reading without quoting, or if a field has doubled quotes inside. If only some fields are
    in quotes, and none of them needs to be, they are the text's.

    Raises:
        InputError: a column has all its fields in quotes, so that they may be the file's or the text's.
    """
    if none.problem is not None:
        return True
    if any(_in_quotes(field) and '""' in field[1:-1] for _, fields in none.rows() for field in fields):
        return True
    for name, (n_filled, n_quoted) in _count_quotes(none).items():
        if n_filled == n_quoted > 1:
            raise InputError(
                f"all fields of column '{name}' are in quotes: set {options.prefix}quoting=standard to remove the "
                f"quotes, or {options.prefix}quoting=none if they are part of the text"
            )
    return False


def _quotes_columns(none: DelimitedFile, some: bool) -> bool:
    """Whether a column has fields in quotes; if some may be, whether it has more than half of them in quotes."""
    return any(n_quoted > (n_filled / 2 if some else 0) for n_filled, n_quoted in _count_quotes(none).values())


def _count_quotes(none: DelimitedFile) -> dict[str, tuple[int, int]]:
    """How many fields of each column are filled, and how many are in quotes."""
    header = none.header
    n_filled, n_quoted = [0] * header.n_fields, [0] * header.n_fields
    for _, fields in none.rows():
        for index, field in enumerate(fields):
            n_filled[index] += bool(field)
            n_quoted[index] += _in_quotes(field)
    return {name: (n_filled[index], n_quoted[index]) for name, index in header.columns}
