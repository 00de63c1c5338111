"""The one exception that is meant for people: a setting, its value, what was expected, what to do."""


class MetaLearningError(Exception):
    """A mistake that the person at the keyboard can mend; the command line prints it without a traceback."""
