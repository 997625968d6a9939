"""The one base of errors that a person can put right."""


class UserError(ValueError):
    """What was asked for can't be; the message is one line: what is wrong and what would be right."""
