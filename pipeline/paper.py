"""The published numbers, each with its table or section (He et al., arXiv 1512.03385)."""

# Table 6: CIFAR-10 test error in percent of residual networks with option A, by depth; for 110
# layers the best of five runs (mean and standard deviation: RESNET_110_FIVE_RUNS_PCT).
CIFAR10_RESNET_TEST_ERROR_PCT = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.43, 1202: 7.93}
CIFAR10_RESNET_PARAMETERS_M = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7, 1202: 19.4}
RESNET_110_FIVE_RUNS_PCT = (6.61, 0.16)

# Sections 4.2 and 3.4: updates of a training, and images of a batch.
UPDATES = {"cifar": 64_000, "imagenet": 600_000}
BATCH = {"cifar": 128, "imagenet": 256}

# Table 1 and section 3.3: multiply-adds for one 224x224 image, in billions. The figure for 34 layers is
# that of the plain network and of option A; VGG-19's is in section 3.3.
MULTIPLY_ADDS_G = {18: 1.8, 34: 3.6, 50: 3.8, 101: 7.6, 152: 11.3}
VGG_19_MULTIPLY_ADDS_G = 19.6

# ImageNet validation errors (top-1, top-5) in percent by block, depth and option; Table 2 gives no
# top-5. Tables 2 and 3: ten crops. Table 4: fully convolutional, five scales.
IMAGENET_TEN_CROPS_PCT: dict[tuple[str, int, str], tuple[float, float | None]] = {
    ("plain", 18, "none"): (27.94, None),
    ("basic", 18, "A"): (27.88, None),
    ("plain", 34, "none"): (28.54, 10.02),
    ("basic", 34, "A"): (25.03, 7.76),
    ("basic", 34, "B"): (24.52, 7.46),
    ("basic", 34, "C"): (24.19, 7.40),
    ("bottleneck", 50, "B"): (22.85, 6.71),
    ("bottleneck", 101, "B"): (21.75, 6.05),
    ("bottleneck", 152, "B"): (21.43, 5.71),
}
IMAGENET_SCALES_PCT: dict[tuple[str, int, str], tuple[float, float | None]] = {
    ("basic", 34, "B"): (21.84, 5.71),
    ("basic", 34, "C"): (21.53, 5.60),
    ("bottleneck", 50, "B"): (20.74, 5.25),
    ("bottleneck", 101, "B"): (19.87, 4.60),
    ("bottleneck", 152, "B"): (19.38, 4.49),
}
SCALES_PX = (224, 256, 384, 480, 640)  # section 3.4, shorter sides
ENSEMBLE_TOP5_PCT = 3.57  # Table 5, six networks, on the test server


def cifar10_test_error_pct(depth: int, shortcut: str) -> float | None:
    """Returns a network's error in table 6, or None: plain networks appear only in figure 6.

    Of 110 layers that is the mean of five runs: what a rerun is to be compared with is not the best of them.
    """
    if (depth, shortcut) == (110, "A"):
        return RESNET_110_FIVE_RUNS_PCT[0]
    return CIFAR10_RESNET_TEST_ERROR_PCT.get(depth) if shortcut == "A" else None
