"""The mean of the last rounds' arrays, which is judged and kept in place of the last round's own.

Rounds go on from their own arrays, so that training is the same with and without. After the last round the mean takes
their place: whatever judges, explains or exports the run's model finds it there. It is made of released arrays alone
and costs no privacy.

Source: Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization", rounds for epochs.
BatchNorm's running statistics are averaged too and not made anew, for the server has no images.
"""

import math

import numpy as np

from common.arrays import Arrays, is_float
from common.config import RunConfig
from server.checkpoint import Checkpoint


def judged_arrays(checkpoint: Checkpoint, config: RunConfig) -> Arrays:
    """Add this round's arrays to the mean, where it has begun, and give what is judged after the round.

    Args:
        checkpoint: After the round. Its `sums` grow, in float64; after the last round its `arrays` are the mean.
        config: The run's settings; `strategy.average-rounds` is the share of the rounds that count.
    """
    averaged = math.ceil(config.strategy.average_rounds * config.rounds - 1e-9)  # 0.1 times 30 is 3, and no more
    if checkpoint.round <= config.rounds - averaged:
        return checkpoint.arrays
    for name, array in checkpoint.arrays.items():
        if is_float(array):
            checkpoint.sums[name] = checkpoint.sums.get(name, np.zeros(array.shape)) + array
    count = checkpoint.round - (config.rounds - averaged)
    mean = {
        name: (checkpoint.sums[name] / count).astype(array.dtype) if is_float(array) else array
        for name, array in checkpoint.arrays.items()
    }
    if checkpoint.round == config.rounds:
        checkpoint.arrays, checkpoint.sums = mean, {}
    return mean
