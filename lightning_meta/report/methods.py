"""Names of methods and data sets and the colours of methods, the same in every figure."""

import zlib

# Names of algorithms in figures, where they differ from their classes; shipped configurations have names of their own.
NAMES = {
    "FineTuning": "fine-tuning",
    "GradientCombination": "gradient combination",
    "IMAML": "iMAML",
    "LearnedOptimizer": "learned optimizer",
    "MAMLPlusPlus": "MAML++",
    "MatchingNetworks": "matching networks",
    "NearestNeighbour": "nearest neighbour",
    "PolicyGradientMAML": "MAML by REINFORCE",
    "PrototypicalNetworks": "prototypical networks",
    "TRPOMAML": "MAML by TRPO",
}
DATA = {"CIFARFS": "CIFAR-FS", "MiniImageNet": "mini-ImageNet", "TieredImageNet": "tiered-ImageNet"}

# Methods that are compared most have the colours of Okabe and Ito (darkened where text in them would be too pale), the
# others those of Tol's muted scheme: both can be told apart with any colour vision. Sums of inner gradients are blue,
# averages orange, single gradients grey, each darker with more gradients.
COLOURS = {
    "MAML": "#0072B2",
    "FOMAML": "#D55E00",
    "Reptile": "#009E73",
    "MAML++": "#332288",
    "Meta-SGD": "#CC79A7",
    "ANIL": "#3A9BD0",
    "BOIL": "#B8860B",
    "iMAML": "#882255",
    "prototypical networks": "#000000",
    "matching networks": "#666666",
    "nearest neighbour": "#999933",
    "nearest neighbour on pixels": "#7A7A1F",
    "fine-tuning": "#CC6677",
    "training from scratch": "#A65628",
    "MAML with an LSTM": "#44AA99",
    "distributed MAML": "#6699CC",
    "MAML without convolution": "#5E3C99",
    "MAML by TRPO": "#004C76",
    "MAML by REINFORCE": "#AA4499",
    "pre-trained policy": "#8C510A",
    "learned optimizer": "#117733",
    "gradient combination": "#4D4D4D",
    "g1": "#9A9A9A",
    "g2": "#7C7C7C",
    "g3": "#505050",
    "g4": "#111111",
    "g1 + g2": "#6BAED6",
    "g1 + g2 + g3": "#2F7EBC",
    "g1 + g2 + g3 + g4": "#08306B",
    "(g1 + g2) / 2": "#F0A04B",
    "(g1 + g2 + g3) / 3": "#D9661F",
    "(g1 + g2 + g3 + g4) / 4": "#8C3A04",
}
OTHERS = ("#4477AA", "#AA3377", "#228833", "#B35900", "#117777", "#771155", "#5C5C8A", "#774411")  # of your own methods


def algorithm_name(algorithm: str) -> str:
    """What figures call the algorithm of this class."""
    return NAMES.get(algorithm, algorithm)


def data_name(data: str) -> str:
    """What figures call the data of this data module."""
    return DATA.get(data, data)


def colour(method: str) -> str:
    """The colour of a method, which depends on its name alone."""
    return COLOURS.get(method) or OTHERS[zlib.crc32(method.encode()) % len(OTHERS)]
