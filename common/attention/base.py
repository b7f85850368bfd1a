"""What an attention site is, where its tensor can be read, and what every attention layer and model promises."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol, Self, runtime_checkable

from torch import Tensor, nn

Kind = Literal[
    "channel-gate",
    "spatial-gate",
    "attention-gate",
    "feature-gate",
    "branch",
    "self-attention",
    "cross-attention",
    "window",
    "axial",
    "neighbourhood",
    "pooling",
]
Grid = tuple[int, ...]
"""Size of a feature map or token grid: (rows, columns), or (depth, rows, columns)."""
Inputs = Literal["features", "tokens", "skip", "pair", "frames", "bag"]


@dataclass(frozen=True, slots=True)
class AttentionSite:
    """One attention operator.

    `module` is the path of the submodule whose forward *output* is the attention tensor (*S: two or three axes):

    - channel-gate [B, C]; spatial-gate and attention-gate [B, 1, *S]; feature-gate [B, C, *S]: gates in (0, 1); `grid`
      says how many axes S has (None: two);
    - branch [B, M, C]: weights of M = `branches` branches for each of C channels (C may be 1), sum one over M;
    - self-attention [B, heads, N, N]: rows sum to one; `grid` holds the tokens, `cls` says if token 0 is a class token;
    - cross-attention [B, heads, N, M]: rows sum to one; `grid` of the queries, `keys` of the keys (either may be None);
    - window [B, W, heads, n, n]: self-attention inside each of W windows of size `window` that tile `grid`, both in row
      by row order, after the grid was rolled by -`shift`; where the window does not divide the grid, the last windows
      are padded, and no row looks at padding;
    - axial [B, L, heads, n, n]: self-attention along `axis` of `grid`, n = grid[axis], on each of the L other lines;
    - neighbourhood [B, heads, N, K]: rows sum to one over K = product of `window` places around each query, row by row,
      `dilation` apart;
    - pooling [B, N] or [B, G, n]: weights of a bag's (or each of G groups') instances, sum one over the last axis.

    `heads` and `branches` say how many there are (0: unknown, then no statistic has one entry for each). `features` is,
    for a channel gate, the path of the submodule whose output [B, C, *S] the gate scales; without it the gate is
    measured and has no map to show.
    """

    name: str
    kind: Kind
    module: str
    grid: Grid | None = None
    cls: bool = False
    heads: int = 0
    features: str = ""
    keys: Grid | None = None
    window: Grid | None = None
    shift: Grid | None = None
    axis: int = 0
    dilation: int = 1
    branches: int = 0


class AttentionLayer(nn.Module):
    """Contract of every layer in ATTENTION; a layer knows its maps, and no model.

    `takes` says what it is fed, and so where a backbone can put it:

    - features [B, C, *S] -> [B, C, *S]; `mask` bool [B, *S];
    - tokens [B, N, D] -> [B, N, D]; `mask` bool [B, N];
    - skip: features [B, C, *S] and gating [B, G, *s], coarser -> [B, C, *S]; `mask` bool [B, *S];
    - pair: tokens [B, N, D] and context [B, M, E] -> [B, N, D]; `mask` bool [B, M], of the context;
    - frames [B, T, N, D] -> [B, T, N, D]; `mask` bool [B, T, N];
    - bag [B, N, D] -> [B, D]; `mask` bool [B, N].

    A mask is True where something real stands. What is masked out gets no attention (softmax) and changes no answer and
    no map elsewhere. The batch is the first axis of every submodule's input and output: windows, axes, heads and bags
    never fold into it. Parameters stand in leaf modules without buffers, and none is dead.
    """

    takes: ClassVar[Inputs] = "features"
    dims: ClassVar[tuple[int, ...]] = (2, 3)
    """How many axes a grid may have."""
    class_token: ClassVar[bool] = False
    """tokens: whether a class token may stand before the grid's tokens."""

    @classmethod
    def build(cls, channels: int, grid: Grid, other: int = 0) -> Self:
        """Give the layer with its paper's settings, shrunk to fit.

        Args:
            channels: C or D of the first input.
            grid: S of the features, the tokens' grid, (T, *grid) of frames, (N,) of a bag. Of a skip, the features'.
            other: G of the gating or E of the context.
        """
        raise NotImplementedError

    def attend(self, *inputs: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Give the output and then every map, in the order of `sites`."""
        raise NotImplementedError

    def sites(self, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
        """Say where the maps come out, names and modules as seen from the layer (name empty where there is one)."""
        raise NotImplementedError


def placed(layer: AttentionLayer, path: str, name: str, grid: Grid, cls: bool = False) -> tuple[AttentionSite, ...]:
    """Give a layer's sites as a model sees them, the layer standing at the submodule `path`."""
    return tuple(
        replace(
            site,
            name=f"{name}.{site.name}" if site.name else name,
            module=f"{path}.{site.module}" if site.module else path,
        )
        for site in layer.sites(grid, cls)
    )


@runtime_checkable
class Switchable(Protocol):
    """A layer whose map exists only on the explicit path; the recorder switches `explicit` on while it listens."""

    explicit: bool


class AttentionModel(nn.Module):
    """Contract of every model: images in, logits out, attention sites named, features offered; what answers is `head`.

    Shapes: images [B, C, H, W] in [-1, 1] -> logits [B, K] (classification) or [B, K, H, W] (segmentation).

    `forward` is the submodule `head` of `features`, and `features` begins with `before`, which does nothing by itself.
    """

    dense: ClassVar[bool] = False
    """True: one logit per class and pixel (segmentation). False: one per class (classification)."""

    attention_sites: tuple[AttentionSite, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.before: nn.Module = nn.Identity()

    def features(self, images: Tensor) -> Tensor:
        """Give the representation before the head: [B, D] (classification) or [B, D, H, W] (segmentation)."""
        raise NotImplementedError
