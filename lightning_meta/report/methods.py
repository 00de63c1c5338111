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

# Methods that a panel may compare: the first three colours are Okabe and Ito's, the others were searched for the
# greatest distance to those before with any colour vision. A test holds that distance and the contrast with white.
CLASSIFIERS = {
    "MAML": "#0072B2",
    "FOMAML": "#D55E00",
    "Reptile": "#009E73",
    "MAML++": "#002288",
    "Meta-SGD": "#8800EE",
    "ANIL": "#882288",
    "BOIL": "#662200",
    "iMAML": "#EE0044",
    "prototypical networks": "#000000",
    "matching networks": "#666666",
    "nearest neighbour": "#AA88AA",
    "nearest neighbour on pixels": "#664466",
    "fine-tuning": "#AA0044",
    "training from scratch": "#440044",
    "pre-trained network": "#222222",
    "MAML with an LSTM": "#8866EE",
    "distributed MAML": "#8888EE",
    "MAML without convolution": "#002200",
}
POLICIES = {"MAML by TRPO": "#0072B2", "MAML by REINFORCE": "#D55E00", "pre-trained policy": "#000000"}
# Sums of inner gradients are blue, averages orange, single gradients grey, each darker with more gradients.
COMBINATIONS = {
    "g1": "#8A8A8A",
    "g2": "#6E6E6E",
    "g3": "#4A4A4A",
    "g4": "#111111",
    "g1 + g2": "#4F9BCB",
    "g1 + g2 + g3": "#2A72B0",
    "g1 + g2 + g3 + g4": "#08306B",
    "(g1 + g2) / 2": "#D97F1E",
    "(g1 + g2 + g3) / 3": "#C2520F",
    "(g1 + g2 + g3 + g4) / 4": "#7F3303",
}
COLOURS = CLASSIFIERS | POLICIES | COMBINATIONS | {"learned optimizer": "#0072B2", "gradient combination": "#666666"}
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
