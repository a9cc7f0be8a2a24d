"""What is said where a reward itself fails: its name, the cause, and the texts that it was called on."""

from collections.abc import Sequence

from trl_rewards_plugin.rewards.names import shortened


def failure(name: str, error: Exception, plain: Sequence[str]) -> RuntimeError:
    """To be raised from `error`, which reward `name` raised on the texts `plain`."""
    return RuntimeError(f"reward {name!r} raised {type(error).__name__}: {error}; {called_on(plain)}")


def called_on(plain: Sequence[str]) -> str:
    """How many texts, and the first of them."""
    return f"it was called on {len(plain)} completions, the first of them {first_of(plain)}"


def first_of(plain: Sequence[str]) -> str:
    """The first text, quoted and shortened."""
    return shortened(plain[0]) if plain else "no texts at all"
