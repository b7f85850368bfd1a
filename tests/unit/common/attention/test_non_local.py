"""The non-local block against its formula."""

import pytest
import torch
from torch.nn import functional as F

from common.attention.non_local import NonLocal


def by_hand(layer, features, keys):
    """Look from each position at the keys, one image at a time; keys as a map [C, *S] -> [c, M] for phi and g."""
    answers, maps = [], []
    for image in features:
        query = torch.einsum("oc,cn->on", layer.theta.weight.flatten(1), image.flatten(1)) + layer.theta.bias[:, None]
        key = keys(torch.einsum("oc,c...->o...", layer.phi.weight.flatten(1), image))
        value = keys(torch.einsum("oc,c...->o...", layer.g.weight.flatten(1), image)) + layer.g.bias[:, None]
        scores = torch.exp(torch.einsum("cn,cm->nm", query, key))
        maps.append(scores / scores.sum(1, keepdim=True))
        mixed = torch.einsum("nm,cm->cn", maps[-1], value).view(-1, *image.shape[1:])
        answers.append(layer.out(mixed[None])[0] + image)
    return torch.stack(answers), torch.stack(maps)[:, None]


@pytest.mark.parametrize("shape", [(4, 6), (2, 4, 4)], ids=["2d", "3d"])
@pytest.mark.parametrize("subsample", [False, True])
def test_equals_the_formula(shape, subsample):
    torch.manual_seed(0)
    layer = NonLocal(6, dims=len(shape), subsample=subsample)
    features = torch.randn(2, 6, *shape)
    pool = F.max_pool2d if len(shape) == 2 else F.max_pool3d
    expected, maps = by_hand(layer, features, lambda x: (pool(x[None], 2)[0] if subsample else x).flatten(1))
    answer, found = layer.attend(features)
    torch.testing.assert_close(found, maps, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(answer, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer(features), expected, atol=1e-5, rtol=1e-5)


def test_with_fewer_keys_the_site_says_so_and_masked_cells_are_not_looked_at():
    torch.manual_seed(1)
    layer = NonLocal(4, subsample=True)
    (site,) = layer.sites((5, 6))
    assert (site.kind, site.grid, site.keys) == ("cross-attention", (5, 6), (2, 3))
    features, mask = torch.randn(2, 4, 4, 6), torch.ones(2, 4, 6, dtype=torch.bool)
    mask[:, :, 3:] = False  # the middle cells keep one column, the last cells none
    changed = torch.where(mask[:, None], features, 100.0)
    before, maps = layer.attend(features, mask)
    after, _ = layer.attend(changed, mask)
    torch.testing.assert_close(after * mask[:, None], before * mask[:, None], atol=0, rtol=0)
    assert maps.view(2, 24, 2, 3)[..., 2].abs().max() == 0
    assert maps.view(2, 24, 2, 3)[..., 1].min() > 0
    torch.testing.assert_close(layer(features, mask), before, atol=1e-5, rtol=1e-5)


def test_a_key_bias_changes_no_map():
    torch.manual_seed(2)
    layer = NonLocal(4, key_bias=True)
    features = torch.randn(2, 4, 3, 3)
    before = layer.attend(features)[1]
    torch.nn.init.constant_(layer.phi.bias, 3.0)
    torch.testing.assert_close(layer.attend(features)[1], before, atol=1e-6, rtol=1e-5)
