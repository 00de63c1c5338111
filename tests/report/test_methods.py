"""Colours of methods: fixed, legible, and apart for every colour vision."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from lightning_meta.report.methods import CLASSIFIERS, COLOURS, COMBINATIONS, POLICIES, algorithm_name, colour
from lightning_meta.report.published import read_configurations

# How people without one kind of cone see linear RGB: Machado, Oliveira and Fernandes (2009), severity 1.
VISIONS = {
    "all cones": np.eye(3),
    "no long": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no middle": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no short": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(name: str) -> np.ndarray:
    value = np.array(to_rgb(name))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE 1976 L*a*b*, in which a distance of about 2 is just noticeable."""
    xyz = TO_XYZ @ rgb.clip(0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize(("group", "least"), [(CLASSIFIERS, 12), (POLICIES, 12), (COMBINATIONS, 5)])
def test_methods_that_a_panel_compares_are_apart(group: dict[str, str], least: float, vision: str) -> None:
    seen = {name: lab(VISIONS[vision] @ linear(hexadecimal)) for name, hexadecimal in group.items()}
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > least, (one, other)


def test_text_in_every_colour_can_be_read_on_white() -> None:
    """WCAG asks for a contrast of 3 for graphics and large text; the palest average of gradients has 2.9."""
    for name, hexadecimal in COLOURS.items():
        assert 1.05 / (linear(hexadecimal) @ TO_XYZ[1] + 0.05) > 2.9, name


def test_every_shipped_method_has_its_colour() -> None:
    assert {known.method for known in read_configurations().values()} <= COLOURS.keys()


def test_another_method_has_the_same_colour_every_time() -> None:
    assert (colour("CAVIA"), colour("ProtoMAML")) == ("#117777", "#5C5C8A")
    assert (algorithm_name("IMAML"), algorithm_name("CAVIA")) == ("iMAML", "CAVIA")
