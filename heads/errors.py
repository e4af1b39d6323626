"""The one exception that a user is meant to read."""


class InputError(ValueError):
    r"""Something the user typed or supplied is wrong.

    The message is one line that says what is wrong, where, and what to type instead. Recipes print it without a
    stack trace and exit with 2. A line break or control character in it, as in a file's column name, is escaped.

    >>> print(InputError("there is no column 'a\nb'"))
    there is no column 'a\nb'
    """

    def __init__(self, message: str) -> None:
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in message)
        super().__init__(shown)
