"""Each explanation by hand: products written out, gradients by autograd, and a model that looks at one patch."""

from collections import OrderedDict
from functools import reduce

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.attention.base import AttentionModel, AttentionSite
from common.attention.maps import attention_maps
from common.config import load_run_config
from common.explanations.base import answers, on_grid
from common.explanations.gates import Gates
from common.explanations.grad_cam import GradCam, weighed_features
from common.explanations.hybrid import Hybrid, combined
from common.explanations.raw import Raw
from common.explanations.relevance import Relevance, relevance_row
from common.explanations.rollout import Rollout, rollout_row
from common.models.build import build_model


def built(name, outputs=1, **changes):
    settings = load_run_config({"model.name": name, "model.width": 8, **changes}).model
    return build_model(settings, 1, outputs, 32, seed=0, dense="unet" in name)


def images(count=2):
    return torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def enlarged(maps):
    return F.interpolate(maps[:, None], size=(32, 32), mode="bilinear")[:, 0]


def rows(layers, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.rand(2, 3, 5, 5, generator=random).softmax(-1) for _ in range(layers)]


@pytest.mark.parametrize("layers", [1, 2, 6])
def test_the_row_trick_is_the_full_product(layers):
    maps = rows(layers)
    full = reduce(lambda done, layer: (0.5 * layer.mean(1) + 0.5 * torch.eye(5)) @ done, maps, torch.eye(5))
    for place in range(5):
        start = F.one_hot(torch.tensor([place, place]), 5).float()
        torch.testing.assert_close(rollout_row(maps, start), full[:, place])
    torch.testing.assert_close(rollout_row(maps, torch.full((2, 5), 0.2)), full.mean(1))


def test_rollout_brings_each_row_to_a_sum_of_one():
    """A factor for each query, as rounding leaves it, changes nothing; one for each key would."""
    maps, factors = rows(3), torch.tensor([0.5, 2.0, 1.0, 3.0, 0.1])
    start = F.one_hot(torch.tensor([0, 3]), 5).float()
    torch.testing.assert_close(
        rollout_row([layer * factors[:, None] for layer in maps], start), rollout_row(maps, start)
    )


@pytest.mark.parametrize("layers", [1, 4])
def test_relevance_rows_are_the_full_recursion(layers):
    """R ← R + Ā R from the first layer to the last, written out."""
    maps = [layer.mean(1) for layer in rows(layers)]
    full = torch.eye(5).expand(2, 5, 5)
    for layer in maps:
        full = full + layer @ full
    start = F.one_hot(torch.tensor([0, 0]), 5).float()
    torch.testing.assert_close(relevance_row(maps, start), full[:, 0])


class OneLayer(AttentionModel):
    """A class token that attends once, by fixed scores plus the pixels' own, over four patches of a 2 x 2 image."""

    def __init__(self, values):
        super().__init__()
        self.maps = nn.Softmax(-1)
        self.values = nn.Parameter(torch.tensor(values))
        self.attention_sites = (AttentionSite("one", "self-attention", "maps", grid=(2, 2), cls=True),)

    def forward(self, images):
        pixels = images.flatten(1)
        scores = F.pad(pixels, (1, 0))[:, None, None].expand(-1, 1, 5, 5)
        return (self.maps(scores)[:, 0, 0] * self.values).sum(1, keepdim=True)


def test_relevance_of_one_head_and_layer_by_hand():
    """The logit is Σ_j A_0j v_j, so ∂/∂A_0j = v_j: relevance is (v_j A_0j)⁺ over the patches, then a sum of one."""
    model = OneLayer([5.0, 1.0, -2.0, 0.5, 3.0])
    pixels = torch.tensor([[[[0.1, 0.9], [-0.3, 0.4]]]])
    attention = torch.tensor([0.0, 0.1, 0.9, -0.3, 0.4]).softmax(0)
    wanted = (attention * model.values).clamp_min(0)[1:].detach()
    found = Relevance()(model, pixels, torch.tensor([1]))
    torch.testing.assert_close(found[0].flatten(), wanted / wanted.sum(), rtol=1e-4, atol=1e-6)
    # class 0 is the other side of the same logit
    against = (-attention * model.values).clamp_min(0)[1:].detach()
    found = Relevance()(model, pixels, torch.tensor([0]))
    torch.testing.assert_close(found[0].flatten(), against / against.sum(), rtol=1e-4, atol=1e-6)
    raw = Raw()(model, pixels)
    torch.testing.assert_close(raw[0].flatten(), attention[1:] / attention[1:].sum(), rtol=1e-4, atol=1e-6)


class Linear(AttentionModel):
    """Two filters, mean over places, one weight each: Grad-CAM is ReLU(Σ_c v_c F_c) / (h w)."""

    def __init__(self):
        super().__init__()
        self.filters = nn.Conv2d(1, 2, 1)
        self.head = nn.Linear(2, 1)

    def forward(self, images):
        return self.head(self.filters(images).mean((2, 3)))


def test_grad_cam_of_a_linear_model_by_hand():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Linear()
    features = model.filters(images()).detach()
    for target, sign in ((1, 1.0), (0, -1.0)):
        wanted = (sign * model.head.weight[0, :, None, None] * features).sum(1).clamp_min(0).detach() / (32 * 32)
        torch.testing.assert_close(weighed_features(model, images(), torch.tensor([target] * 2)), wanted)


def test_grad_cam_reads_the_patches_before_the_last_attention():
    """After the last attention only the class token counts; the map must still tell patches apart."""
    model = built("vit-tiny")
    kept = OrderedDict()
    hook = model.blocks[-1].before_attention.register_forward_hook(lambda m, i, o: kept.update(tokens=o))
    score = answers(model(images()), None)
    hook.remove()
    (grad,) = torch.autograd.grad(score.sum(), kept["tokens"])
    patches, moves = kept["tokens"][:, 1:].detach(), grad[:, 1:]
    wanted = (moves.mean(1, keepdim=True) * patches).sum(2).clamp_min(0).reshape(2, 8, 8)
    torch.testing.assert_close(weighed_features(model, images(), None), enlarged(wanted))


PLACES = [
    ("convnet", "token-pooling", "stage3", (4, 4)),
    ("convnet", "window", "stage3", (4, 4)),
    ("resnet-ws", "token-pooling", "blocks", (4, 4)),
    ("vit", "none", "norm", (8, 8)),
    ("vit", "cross-attention", "norm", (8, 8)),
    ("vit", "se", "norm", (8, 8)),
    ("unet", "axial", "up1", (32, 32)),
]


@pytest.mark.parametrize(("name", "attention", "last", "grid"), PLACES)
def test_grad_cam_reads_the_last_features_and_nothing_inside_attention(name, attention, last, grid):
    """Groups [B, G, n, D] of a bag look like features and are none; patches are read after the last block."""
    model, kept = built(name, 3, **{"model.attention": attention}), {}
    hook = model.get_submodule(last).register_forward_hook(lambda module, inputs, output: kept.update(found=output))
    targets = torch.tensor([0, 2])
    score = answers(model.eval()(images()), targets)
    hook.remove()
    (grad,) = torch.autograd.grad(score.sum(), kept["found"])
    if kept["found"].ndim == 3:
        features, moves = (each.transpose(1, 2).unflatten(2, grid) for each in (kept["found"], grad))
    else:
        features, moves = kept["found"], grad
    assert features.shape[2:] == grid
    wanted = torch.einsum("bc,bchw->bhw", moves.mean((2, 3)), features).clamp_min(0).detach()
    torch.testing.assert_close(weighed_features(model, images(), targets), enlarged(wanted))


class TwoRoads(AttentionModel):
    """The answer is mean early² + mean late⁺, late = early: on dark images the second road is dead."""

    def __init__(self):
        super().__init__()
        self.early, self.late = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False)
        with torch.no_grad():
            self.early.weight.fill_(1)
            self.late.weight.copy_(torch.eye(2)[:, :, None, None])

    def forward(self, images):
        early = self.early(images)
        return (early.square() + self.late(early).relu()).mean((1, 2, 3))[:, None]


def test_no_other_image_decides_which_features_are_read():
    """Both channels are x. Late moves the answer by 1 / 2hw each, so x / hw; where it is dead, early by 2x / 2hw."""
    bright = images(1).abs() + 0.1
    mixed, targets = torch.cat([bright, -bright]), torch.tensor([1, 1])
    found = weighed_features(TwoRoads(), mixed, targets)
    torch.testing.assert_close(found[0], bright[0, 0] / 1024)
    torch.testing.assert_close(found[1], 2 * bright.mean() * bright[0, 0] / 1024)


def test_gates_are_the_mean_of_the_maps_that_overlays_show():
    model = built("convnet", **{"model.attention": "cbam"})
    maps = attention_maps(model, images())
    torch.testing.assert_close(Gates()(model, images()), torch.stack(list(maps.values())).mean(0))


def test_raw_is_the_last_layers_map():
    model = built("vit-tiny")
    torch.testing.assert_close(Raw()(model, images()), list(attention_maps(model, images()).values())[-1])


def test_rollout_of_the_transformer_is_the_full_product():
    from common.attention.recorder import Recorder

    model = built("vit-tiny").eval()
    with torch.no_grad(), Recorder(model) as recorder:
        model(images())
        layers = list(recorder.take().values())
    size = layers[0].shape[-1]
    full = reduce(lambda done, layer: (0.5 * layer.mean(1) + 0.5 * torch.eye(size)) @ done, layers, torch.eye(size))
    coarse = on_grid(model.attention_sites[0], full[:, 0])
    large = enlarged(coarse)
    torch.testing.assert_close(
        Rollout()(model, images()), large / large.sum((1, 2), keepdim=True), rtol=1e-3, atol=1e-7
    )


class Peephole(AttentionModel):
    """Sees nothing but the upper left quarter, through a gate that is open there alone."""

    def __init__(self):
        super().__init__()
        self.filters = nn.Conv2d(1, 4, 3, padding=1)
        self.gate = nn.Sigmoid()
        self.head = nn.Linear(4, 1)
        self.attention_sites = (AttentionSite("hole", "spatial-gate", "gate"),)

    def forward(self, images):
        wall = torch.full_like(images, -30.0)
        wall[:, :, :16, :16] = 30.0
        return self.head((self.filters(images) * self.gate(wall)).abs().mean((2, 3)))


@pytest.mark.parametrize("explain", [Gates(), Hybrid()], ids=["gates", "hybrid"])
def test_a_model_that_looks_through_a_hole_is_found_out(explain):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Peephole()
        nn.init.constant_(model.head.weight, 1.0)
    maps = explain(model, images(), torch.ones(2, dtype=torch.long))
    assert bool((maps[:, :17, :17].sum((1, 2)) > 0.95).all())


class OnePatch(AttentionModel):
    """Two layers over 4 x 4 patches: the class token looks at one patch, every patch at itself; two heads alike."""

    def __init__(self, patch):
        super().__init__()
        self.first, self.second = nn.Softmax(-1), nn.Softmax(-1)
        scores = 8 * torch.eye(17)
        scores[0] = 8 * F.one_hot(torch.tensor(1 + patch), 17)
        self.scores = nn.Parameter(scores)
        self.attention_sites = tuple(
            AttentionSite(name, "self-attention", name, grid=(4, 4), cls=True) for name in ("first", "second")
        )

    def forward(self, images):
        tokens = F.pad(F.avg_pool2d(images, 8).flatten(1), (1, 0))
        for layer in (self.first, self.second):
            attention = layer(self.scores.expand(len(images), 2, 17, 17))
            tokens = tokens + torch.einsum("bhij,bj->bi", attention, tokens) / 2
        return tokens[:, :1]


@pytest.mark.parametrize("explain", [Raw(), Rollout(), Relevance()], ids=["raw", "rollout", "relevance"])
@pytest.mark.parametrize("patch", [0, 6, 15])
def test_a_model_that_looks_at_one_patch_is_found_out(explain, patch):
    bright = images().abs() + 0.5  # the same everywhere, so that nothing but attention can tell
    maps = explain(OnePatch(patch), bright, torch.ones(2, dtype=torch.long))
    across = F.avg_pool2d(maps[:, None], 8).flatten(1)
    assert across.argmax(1).tolist() == [patch] * 2
    best, second = across.topk(2, 1).values.T
    assert bool((best > 3 * second).all())


def test_relevance_of_class_0_is_that_of_the_dark_image_for_class_1():
    """The answer is linear in the pixels: -logit(x) = logit(-x), so the maps must be the same."""
    model, zeros = OnePatch(6), torch.zeros(2, dtype=torch.long)
    torch.testing.assert_close(Relevance()(model, images(), zeros), Relevance()(model, -images(), zeros + 1))


@pytest.mark.parametrize("corner", [(0, 0), (8, 20), (24, 24)])
def test_grad_cam_peaks_at_the_spot_that_a_linear_model_likes(corner):
    model = Linear()
    with torch.no_grad():
        model.filters.weight.copy_(torch.tensor([1.0, -1.0])[:, None, None, None])
        model.filters.bias.zero_()
        model.head.weight.copy_(torch.tensor([[2.0, -1.0]]))
    dark = torch.full((1, 1, 32, 32), -1.0)
    dark[:, :, corner[0] : corner[0] + 6, corner[1] : corner[1] + 6] = 1
    found = GradCam()(model, dark, torch.tensor([1]))
    torch.testing.assert_close(found, (dark[:, 0] > 0).float() / 36)
    against = GradCam()(model, dark, torch.tensor([0]))
    torch.testing.assert_close(against, (dark[:, 0] < 0).float() / (32 * 32 - 36))


def test_hybrid_is_high_only_where_both_are():
    both = combined(torch.tensor([[[1.0, 4.0], [0.0, 9.0]]]), torch.tensor([[[1.0, 1.0], [5.0, 4.0]]]))
    torch.testing.assert_close(both, torch.tensor([[[1.0, 2.0], [0.0, 6.0]]]))


def test_hybrid_falls_back_to_the_one_that_says_something():
    grad_cam = torch.tensor([[[1.0, 4.0], [0.0, 9.0]]])
    assert torch.equal(combined(grad_cam, torch.full((1, 2, 2), 0.25)), grad_cam)

    class Silent(Peephole):
        def forward(self, images):
            return super().forward(images) * 0

    model = Silent()
    torch.testing.assert_close(Hybrid()(model, images()), Gates()(model, images()))


def test_where_nothing_speaks_for_the_answer_the_map_is_even():
    class Constant(Linear):
        def forward(self, images):
            return super().forward(images) * 0

    torch.testing.assert_close(GradCam()(Constant(), images()), torch.full((2, 32, 32), 1 / 1024))


def test_which_answer_is_explained():
    logits = torch.tensor([[2.0], [-3.0]])
    torch.testing.assert_close(answers(logits, None), torch.tensor([2.0, 3.0]))
    torch.testing.assert_close(answers(logits, torch.tensor([0, 0])), torch.tensor([-2.0, 3.0]))
    several = torch.tensor([[1.0, 5.0, 2.0]])
    torch.testing.assert_close(answers(several, None), torch.tensor([5.0]))
    torch.testing.assert_close(answers(several, torch.tensor([2])), torch.tensor([2.0]))


def test_which_pixels_are_explained():
    """One foreground class: the mean logit where it is predicted; all pixels where it is nowhere."""
    single = torch.tensor([[[[3.0, 1.0], [-1.0, -5.0]]], [[[-1.0, -2.0], [-3.0, -4.0]]]])
    torch.testing.assert_close(answers(single, None), torch.tensor([2.0, -2.5]))
    torch.testing.assert_close(answers(single, torch.tensor([0, 0])), torch.tensor([3.0, 2.5]))
    # background 0, two foreground classes over two pixels
    several = torch.tensor([[[[0.0, 9.0]], [[1.0, 2.0]], [[4.0, 3.0]]]])
    torch.testing.assert_close(answers(several, None), torch.tensor([4.0]))
    torch.testing.assert_close(answers(several, torch.tensor([2])), torch.tensor([4.0]))
    torch.testing.assert_close(answers(several, torch.tensor([1])), torch.tensor([1.5]))
