"""How this package refuses bad input: what was expected, what was found, what to do next.

Leaves out: failures of other libraries, which are never reworded here.
"""


class InputError(ValueError):
    """Refused input. The message has three labelled lines, and the attributes hold their texts.

    Args:
        expected: What would have been accepted.
        found: What was given instead, quoted.
        next_step: What the reader should do now.
    """

    def __init__(self, expected: str, found: str, next_step: str):
        super().__init__(f"\nExpected: {expected}\nFound:    {found}\nNext:     {next_step}")
        self.expected = expected
        self.found = found
        self.next_step = next_step

    def __reduce__(self) -> tuple[type["InputError"], tuple[str, str, str]]:
        # The default would call InputError(message) with one argument when it crosses a process border.
        return type(self), (self.expected, self.found, self.next_step)
