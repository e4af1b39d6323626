"""How the user's files are written: encoding, delimiter and quoting; their content says so unless they are set."""

from trainers.choose import choose
from trainers.config.need import need

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
# standard: "a ""quoted"" field" (RFC 4180); backslash: "a \"quoted\" field"; none: a quote is a character of the text
QUOTINGS: dict[str, None] = dict.fromkeys(("auto", "standard", "backslash", "none"))


def check_file_format(encoding: str | None, delimiter: str | None, quoting: str, prefix: str = "") -> None:
    """Check the three settings, whose names on the command line begin with prefix.

    Raises:
        InputError: there is no such encoding or quoting, or the delimiter is not one character.

    >>> check_file_format("utf8x", None, "auto", "data.")
    Traceback (most recent call last):
    heads.errors.InputError: data.encoding=utf8x: there is no such encoding; common are utf-8, utf-16 and cp1252
    """
    choose(QUOTINGS, quoting, what="quoting", where=f"{prefix}quoting")
    single = (
        delimiter is None or delimiter in (*DELIMITERS, "\\t") or (len(delimiter) == 1 and delimiter not in '\r\n"\\')
    )
    need(single, f"{prefix}delimiter is {', '.join(DELIMITERS)} or one character, got {delimiter}")
    if encoding is not None:
        known = True
        try:
            "text".encode(encoding).decode(encoding)
        except (LookupError, UnicodeError, ValueError):
            known = False
        common = "common are utf-8, utf-16 and cp1252"
        need(known, f"{prefix}encoding={encoding}: there is no such encoding; {common}")
