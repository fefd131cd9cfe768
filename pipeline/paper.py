"""The published numbers, each with its table or section (He et al., arXiv 1512.03385)."""

# Table 6: CIFAR-10 test error in percent of residual networks with option A, by depth; for 110
# layers the best of five runs (mean and standard deviation: RESNET_110_FIVE_RUNS).
CIFAR10_RESNET_TEST_ERROR_PCT = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.43, 1202: 7.93}
CIFAR10_RESNET_PARAMETERS_M = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7, 1202: 19.4}
RESNET_110_FIVE_RUNS_PCT = (6.61, 0.16)

# Table 1 and section 3.3: multiply-adds of one image of 224x224, in billions. 34 layers are those of
# the plain network and of option A; section 3.3 has VGG-19's.
MULTIPLY_ADDS_G = {18: 1.8, 34: 3.6, 50: 3.8, 101: 7.6, 152: 11.3}
VGG_19_MULTIPLY_ADDS_G = 19.6


def cifar10_test_error_pct(depth: int, shortcut: str) -> float | None:
    """Returns Table 6's error of a network, or None: plain networks stand in figure 6 alone."""
    return CIFAR10_RESNET_TEST_ERROR_PCT.get(depth) if shortcut == "A" else None
