"""Every new name in the changelog's tables is there."""

import re
from importlib import import_module

import pytest

from lightning_meta.learner import MetaLearner
from tests.docs.pages import ROOT

TABLES = ROOT.joinpath("CHANGELOG.md").read_text(encoding="utf-8").partition("### Everything else")[0]
NOW = [row.split(" | ")[1] for row in TABLES.splitlines() if row.startswith("| ")]
NAMES = sorted({name for cell in NOW for name in re.findall(r"`(lightning_meta\.[\w.]+)`", cell)})
OF_A_LEARNER = r"`(\w+_params|start|adapt|run|inner_objective|\w+_carry|\w+_at|check_data)\("
METHODS = sorted({name for cell in NOW for name in re.findall(OF_A_LEARNER, cell)})


@pytest.mark.parametrize("name", NAMES)
def test_the_name_is_there(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(import_module(module), attribute) or import_module(name)


def test_the_methods_are_there() -> None:
    assert len(METHODS) == 9
    for name in METHODS:
        assert callable(getattr(MetaLearner, name))
