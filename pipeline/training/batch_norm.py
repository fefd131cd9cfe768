"""Batch-norm statistics averaged after training, as in the authors' released networks.

"We compute the BN statistics (means and variances) on the training images after the training
procedure" (README of deep-residual-networks): means over many batches with the final weights, instead
of moving averages during training.
"""

import torch
from torch import nn

from pipeline.data.feeding.batches import Batches
from pipeline.models.predict import autocast
from pipeline.params import Precision
from pipeline.training.replicas import Replicas


@torch.no_grad()
def average_statistics(
    model: nn.Module,
    batches: Batches,
    first: int,
    count: int,
    *,
    pieces: int,
    precision: Precision,
    replicas: Replicas,
) -> None:
    """Sets every batch norm's mean and variance to their means over `count` batches from `first`.

    Each batch passes through the network in `pieces`, as in training; all workers' shares count equally.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative means
    model.train()
    for _, (images, _) in batches.between(first, first + count):
        for some_images in images.chunk(pieces):
            with autocast(precision, some_images.device):
                model(some_images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        for statistic in (norm.running_mean, norm.running_var):
            assert statistic is not None
            statistic.copy_(replicas.sum(statistic) / replicas.workers)
