"""Which arrays FedBN keeps at the site."""

from torch import nn

from common.models.group_norm import group_norm
from common.models.norms import norm_parameters
from common.models.weight_standardised import WeightStandardisedConv2d


def test_every_kind_of_normalisation_by_hand():
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.GroupNorm(2, 8),
        nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()),
        WeightStandardisedConv2d(8, 8),
        nn.InstanceNorm2d(8),  # no affine map: holds nothing
        nn.LayerNorm(4),
        nn.Linear(4, 2),
    )
    assert norm_parameters(model) == (
        "1.weight",
        "1.bias",
        "2.0.weight",
        "2.0.bias",
        "2.0.running_mean",
        "2.0.running_var",
        "2.0.num_batches_tracked",
        "3.bias",
        "3.gain",
        "5.weight",
        "5.bias",
    )


def test_a_bare_layer_has_no_dot_in_its_names():
    assert norm_parameters(nn.LayerNorm(4)) == ("weight", "bias")


def test_nothing_to_keep_is_an_empty_tuple():
    assert norm_parameters(nn.Linear(2, 2)) == ()


def test_groups_hold_eight_channels_or_the_next_divisor():
    assert [group_norm(channels).num_groups for channels in (4, 8, 12, 16, 64, 7)] == [1, 1, 2, 2, 8, 1]
