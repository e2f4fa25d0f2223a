"""The one exception that means "the input is at fault"."""


class InputError(ValueError):
    """Bad input: the message is one sentence that says what is wrong, which value, and what to do.

    The command line prints it alone and ends with exit code 2.
    """
