"""The published figures, against the sources' tables as they stand in REFERENCE."""

import pytest

from lightning_meta.report.published import read_lengths, read_published

OMNIGLOT = [f"omniglot/openai_o{task}{kind}" for task in ("15", "55", "120", "520") for kind in ("", "t")]
OMNIGLOT += [
    f"omniglot/finn_{task}_{kind}" for task in ("5w1s", "5w5s", "20w1s", "20w5s") for kind in ("maml", "fomaml")
]
OTHERS = [f"mini_imagenet/openai_m{task}{kind}" for task in ("15", "55") for kind in ("", "t")]
OTHERS += [f"mini_imagenet/finn_{task}_{kind}" for task in ("5w1s", "5w5s") for kind in ("maml", "fomaml")]
OTHERS += ["omniglot/finn_5w1s_maml_noconv", "omniglot/finn_5w1s_imaml", "cifarfs/maml_5w1s", "cifarfs/maml_5w5s"]


def test_every_run_of_the_sources_has_its_figure() -> None:
    assert sorted(read_published()) == sorted(OMNIGLOT + OTHERS)


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
    figure = read_published()[experiment]
    assert str(figure) == text
    assert (figure.transductive, figure.arxiv) == (transductive, arxiv)
    assert (figure.meta_steps, figure.inner_steps) == (meta_steps, inner_steps)


def test_lengths_hold_those_that_sources_state_and_those_that_we_chose() -> None:
    lengths = read_lengths()
    assert (lengths["omniglot/openai_combination"], lengths["figure3/g1"]) == (40_000, 40_000)  # stated
    assert (lengths["fc100/reptile_5w1s"], lengths["omniglot/finn_5w1s_anil"]) == (100_000, 60_000)  # chosen
