"""What somebody who waits for the set-up is told is true, and is told often enough."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.progress import QUIET_BETWEEN_S, Compilation, Line, spoken


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A text that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "1 s"),
        (7.6, "8 s"),
        (12.0, "10 s"),
        (57.0, "1 min"),
        (100.0, "1 min 40 s"),
        (299.0, "5 min"),
        (725.0, "12 min"),
    ],
)
def test_duration_is_as_fine_as_it_is_known(seconds: float, words: str) -> None:
    assert spoken(seconds) == words


def test_terminal_shows_every_change_in_one_line() -> None:
    out = Terminal()
    line = Line("engine", out, Clock())
    line.show("1/9")
    line.show("2/9")
    line.end("compiled")
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().count("\r") == 3


def test_pipe_gets_a_line_now_and_then() -> None:
    out, clock = io.StringIO(), Clock()
    line = Line("engine", out, clock)
    line.show("1/9")
    line.show("2/9")
    clock.now += QUIET_BETWEEN_S
    line.show("3/9")
    line.end("compiled")
    assert [row.split()[1] for row in out.getvalue().splitlines()] == ["1/9", "3/9", "compiled"]
    assert out.getvalue().endswith("· 20 s\n")
    assert "\033" not in out.getvalue()


def test_other_output_of_the_compiler_is_passed_over() -> None:
    compilation = Compilation(100.0, Clock())
    assert compilation.read("-- Build files have been written") is None
    assert compilation.read("warning: [1/2] is no step") is None


# Whole seconds, so that the expected sentence is not a matter of rounding.
@given(share=st.integers(10, 99), rate=st.integers(1, 10))
def test_estimate_is_exact_for_a_steady_compiler(share: int, rate: int) -> None:
    clock = Clock()
    compilation = Compilation(1.0, clock)
    clock.now += share * rate
    shown = compilation.read(f"  [{share}/100] Building CXX object x.o\n")
    assert shown == f"{share}/100 · about {spoken((100 - share) * rate)} left"


def test_first_files_do_not_overturn_the_expectation() -> None:
    clock = Clock()
    compilation = Compilation(100.0, clock)
    clock.now += 10.0
    shown = compilation.read("[1/100] Building CXX object a_slow_one.o")
    assert shown == f"1/100 · about {spoken(0.1 * 990 + 0.9 * 90)} left"


def test_last_step_promises_no_more_time() -> None:
    assert Compilation(100.0, Clock()).read("[9/9] Linking") == "9/9 · linking"
