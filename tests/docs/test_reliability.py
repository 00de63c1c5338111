"""The page "Reliability": its tests exist, and its numbers are theirs and those of the soak test."""

import ast
import csv
import re
from collections import Counter

import pytest

from tests.docs.pages import ROOT

PAGE = ROOT.joinpath("docs", "reliability.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results" / "soak.csv"


def column(table: str, place: int) -> dict[str, str]:
    """A column of one of the two tables by the promise, without the sentence that explains it."""
    cells = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    return {row[0].strip("*").partition("**")[0].rstrip("."): row[place] for row in cells}


PROMISES, _, TESTS = PAGE.partition("## The tests")
NAMED = {promise: re.findall(r"`([\w/]+\.py)::(\w+)`", cell) for promise, cell in column(TESTS, 1).items()}
TRIED = column(PROMISES, 1)


def test_every_promise_has_tests_and_every_test_a_promise() -> None:
    assert list(TRIED) == list(NAMED)
    assert all(NAMED.values())


@pytest.mark.parametrize("promise", NAMED)
def test_the_tests_exist(promise: str) -> None:
    for file, name in NAMED[promise]:
        tree = ast.parse(ROOT.joinpath("tests", file).read_text(encoding="utf-8"))
        assert name in {part.name for part in tree.body if isinstance(part, ast.FunctionDef)}, f"{file}::{name}"


def test_the_cases_are_counted(request: pytest.FixtureRequest) -> None:
    """Where all tests run: a part of them does not hold all cases."""
    if request.config.option.markexpr or request.config.option.keyword:
        pytest.skip("counts the cases of whole files")
    collected = Counter(item.nodeid.partition("[")[0] for item in request.session.items)
    for promise, tests in NAMED.items():
        names = [f"tests/{file}::{name}" for file, name in tests]
        number = re.match(r"(\d+) case", TRIED[promise])
        if number and all(name in collected for name in names):
            assert int(number[1]) == sum(collected[name] for name in names), promise


def test_nothing_was_lost_and_what_the_page_says_of_the_soak_test_is_its_table() -> None:
    with RESULTS.open(newline="") as file:
        rows = [*csv.DictReader(file)]
    often = {"SIGKILL and resume": 1, "SIGKILL twice and resume": 2}
    kills = sum(often.get(row["check"], 0) * int(row["tried"]) for row in rows)
    assert often.keys() < {row["check"] for row in rows}
    assert TRIED["Kill"] == f"{kills} kills, {kills} resumes"
    assert {row["lost"] + row["different"] for row in rows} == {"00"}
    assert set(column(PROMISES, 2).values()) == {"0"}
    training = next(row["detail"] for row in rows if row["kind"] == "meta-steps")
    first, last = re.findall(r"from (\d+) to (\d+) MB", training)[0]
    assert f"from {first} to {last} MB" in PAGE
