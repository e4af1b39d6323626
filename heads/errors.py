"""The one exception that a user is meant to read."""


class InputError(ValueError):
    """Something the user typed or supplied is wrong.

    The message is one line that says what is wrong, where, and what to type instead. Recipes print it without a
    stack trace and exit with 2.
    """
