"""The published figures, against the tables of the papers."""

import pytest

from lightning_meta.errors import MetaLearningError
from lightning_meta.report.published import published, read_configurations

OMNIGLOT = [f"omniglot/openai_o{task}{kind}" for task in ("15", "55", "120", "520") for kind in ("", "t")]
OMNIGLOT += [
    f"omniglot/finn_{task}_{kind}" for task in ("5w1s", "5w5s", "20w1s", "20w5s") for kind in ("maml", "fomaml")
]
OTHERS = [f"mini_imagenet/openai_m{task}{kind}" for task in ("15", "55") for kind in ("", "t")]
OTHERS += [f"mini_imagenet/finn_{task}_{kind}" for task in ("5w1s", "5w5s") for kind in ("maml", "fomaml")]
OTHERS += ["omniglot/finn_5w1s_maml_noconv", "omniglot/finn_5w1s_imaml", "cifarfs/maml_5w1s", "cifarfs/maml_5w5s"]


def test_every_run_of_the_sources_has_its_figure() -> None:
    figures = {name: known.published for name, known in read_configurations().items()}
    compared = [name for name, figure in figures.items() if figure and figure.comparable]
    assert sorted(name for name in compared if not name.startswith("recipes/")) == sorted(OMNIGLOT + OTHERS)


@pytest.mark.parametrize(("experiment", "text"), [("matching_networks", "98.1"), ("nearest_pixels", "41.7")])
def test_a_figure_without_interval_is_not_compared(experiment: str, text: str) -> None:
    figure = published(f"omniglot/finn_5w1s_{experiment}").published
    assert figure is not None
    assert (str(figure), figure.comparable, figure.protocol) == (text, False, None)


def test_every_configuration_has_a_figure_or_says_why_not() -> None:
    for known in read_configurations().values():
        assert (known.published is None) == bool(known.unpublished), known.name


@pytest.mark.parametrize(
    ("experiment", "text", "transductive", "arxiv", "meta_steps", "inner_steps"),
    [
        ("omniglot/openai_o15", "95.39 ± 0.09", False, "1803.02999", 100_000, 50),
        ("omniglot/openai_o15t", "97.68 ± 0.04", True, "1803.02999", 100_000, 50),
        ("omniglot/openai_o520t", "97.12 ± 0.32", True, "1803.02999", 200_000, 50),
        ("omniglot/finn_5w1s_maml", "98.7 ± 0.4", True, "1703.03400", 60_000, 3),
        ("omniglot/finn_20w1s_maml", "95.8 ± 0.3", True, "1703.03400", 60_000, 5),
        ("omniglot/finn_20w5s_fomaml", "97.9 ± 0.1", True, "1803.02999", 60_000, 5),
        ("omniglot/finn_5w1s_maml_noconv", "89.7 ± 1.1", True, "1703.03400", 60_000, 3),
        ("omniglot/finn_5w1s_imaml", "99.16 ± 0.35", True, "1909.04630", 60_000, 16),
        ("mini_imagenet/openai_m55t", "65.99 ± 0.58", True, "1803.02999", 100_000, 50),
        ("mini_imagenet/finn_5w1s_maml", "48.70 ± 1.84", True, "1703.03400", 60_000, 10),
        ("cifarfs/maml_5w5s", "71.5 ± 1.0", True, "1805.08136", 60_000, 10),
    ],
)
def test_figures(experiment: str, text: str, transductive: bool, arxiv: str, meta_steps: int, inner_steps: int) -> None:
    known = published(experiment)
    figure = known.published
    assert figure is not None
    assert str(figure) == text
    assert (figure.protocol, figure.source.arxiv) == ("transductive" if transductive else "non-transductive", arxiv)
    assert (known.meta_steps, figure.inner_steps) == (meta_steps, inner_steps)


def test_lengths_are_stated_or_chosen() -> None:
    names = ["omniglot/openai_combination", "figure3/g1", "fc100/reptile_5w1s", "omniglot/finn_5w1s_anil"]
    assert [(published(name).meta_steps, published(name).meta_steps_stated) for name in names] == [
        (40_000, True), (40_000, True), (100_000, False), (60_000, False),
    ]  # fmt: skip


def test_a_name_that_is_not_known_suggests_one() -> None:
    with pytest.raises(MetaLearningError, match="omniglot/finn_5w1s_mamml, .* did you mean omniglot/finn_5w1s_maml or"):
        published("omniglot/finn_5w1s_mamml")
