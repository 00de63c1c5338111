"""Do the methods stand in the order that their papers report? Reads a table of `lightning-meta report`.

    python benchmarks/studies/orders.py [docs/methods/table.csv]

Prints a row for each claim of a paper: by how much the first method is above the second here, under both protocols,
with the 95% interval of the difference of two means, and whether that confirms the claim, contradicts it or leaves it
open. The interval takes the two as independent, which is wider than what two tests on the same tasks have. A paper's
figures are of its own lengths, and some of another data set: only their order is compared.
"""

import argparse
import csv
from pathlib import Path
from typing import NamedTuple

PREFIX = "omniglot/finn_5w1s_"
ALIKE = 3.0  # points within which the whole interval has to lie for two methods to be alike


class Claim(NamedTuple):
    """That one method does better than another, or as well as it."""

    first: str
    second: str
    published: str
    equal: bool = False


CLAIMS = [
    Claim("maml", "fomaml", "98.7 and 98.3, Nichol et al. (1803.02999)"),
    Claim("fomaml", "reptile", "98.3 and 97.68, Nichol et al. (1803.02999)"),
    Claim("imaml", "maml", "99.16 and 98.7, Rajeswaran et al. (1909.04630)"),
    Claim("meta_sgd", "maml", "Li et al. (1707.09835), Omniglot"),
    Claim("maml_plus_plus", "maml", "Antoniou et al. (1810.09502), Omniglot"),
    Claim("anil", "maml", "alike, Raghu et al. (1909.09157)", equal=True),
    Claim("boil", "maml", "Oh et al. (2008.08882), mini-ImageNet"),
    Claim("boil", "anil", "Oh et al. (2008.08882), mini-ImageNet"),
    Claim("maml", "matching_networks", "98.7 and 98.1, Finn et al. (1703.03400)"),
    Claim("prototypical_networks", "matching_networks", "98.8 and 98.1, Snell et al. (1703.05175)"),
    Claim("matching_networks", "nearest_neighbour", "43.6 and 41.1, Ravi and Larochelle (2017), mini-ImageNet"),
    Claim("maml", "nearest_neighbour", "48.7 and 41.1, Finn et al. (1703.03400), mini-ImageNet"),
    Claim("maml", "fine_tuning", "48.7 and 28.9, Finn et al. (1703.03400), mini-ImageNet"),
    Claim("nearest_neighbour", "fine_tuning", "41.1 and 28.9, Ravi and Larochelle (2017), mini-ImageNet"),
    Claim("matching_networks", "nearest_pixels", "98.1 and 41.7, Vinyals et al. (1606.04080)"),
    Claim("fine_tuning", "from_scratch", "none; what joint training is for"),
]


def verdict(difference: float, half: float, equal: bool) -> str:
    """What a difference with this half-width of its interval says of a claim."""
    if equal and abs(difference) + half <= ALIKE:
        return "yes"
    if abs(difference) <= half:
        return "open"
    return "no" if equal or difference < 0 else "yes"


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", type=Path, default=Path(__file__).parents[2] / "docs/methods/table.csv")
    with parser.parse_args().table.open() as file:
        plain = [row for row in csv.DictReader(file) if row["members"] == "1" and not row["setting"]]
    rows = {row["experiment"].removeprefix(PREFIX): row for row in plain}
    print("| claim | published | transductive | holds | non-transductive | holds |\n|---|---|---|---|---|---|")
    for claim in CLAIMS:
        sign = "=" if claim.equal else ">"
        if missing := [name for name in (claim.first, claim.second) if name not in rows]:
            print(f"| {claim.first} {sign} {claim.second} | {claim.published} | not run: {', '.join(missing)} | | | |")
            continue
        cells = []
        for protocol in ("transductive", "nontransductive"):
            means = [float(rows[name][protocol]) for name in (claim.first, claim.second)]
            halves = [float(rows[name][f"{protocol}_half_width_95"]) for name in (claim.first, claim.second)]
            difference, half = means[0] - means[1], (halves[0] ** 2 + halves[1] ** 2) ** 0.5
            cells += [f"{difference:+.2f} ± {half:.2f}", verdict(difference, half, claim.equal)]
        print(f"| {claim.first} {sign} {claim.second} | {claim.published} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
