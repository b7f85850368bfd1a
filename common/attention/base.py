"""What an attention site is: one attention operator of a model, and where its tensor can be read."""

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

Kind = Literal["channel-gate", "spatial-gate", "attention-gate", "self-attention"]


@dataclass(frozen=True, slots=True)
class AttentionSite:
    """One attention operator.

    `module` is the path of the submodule whose forward *output* is the attention tensor:
    channel-gate [B, C] in (0, 1); spatial-gate and attention-gate [B, 1, H, W] in (0, 1);
    self-attention [B, heads, N, N], rows sum to one, `grid` its token grid (rows, columns), `cls` whether token 0 is a
    class token, `heads` how many heads it has (0: unknown, then no statistic has one entry per head).
    `features` is, for a channel gate, the path of the submodule whose output [B, C, H, W] the gate scales; without it
    the gate is measured and has no map to show.
    """

    name: str
    kind: Kind
    module: str
    grid: tuple[int, int] | None = None
    cls: bool = False
    heads: int = 0
    features: str = ""


@runtime_checkable
class Switchable(Protocol):
    """A layer whose map exists only on the explicit path; the recorder switches `explicit` on while it listens."""

    explicit: bool


class AttentionModel(nn.Module):
    """Contract of every model: images in, logits out, attention sites named, features offered.

    Shapes: images [B, C, H, W] in [-1, 1] -> logits [B, K] (classification) or [B, K, H, W] (segmentation).
    """

    dense: ClassVar[bool] = False
    """True: one logit per class and pixel (segmentation). False: one per class (classification)."""

    attention_sites: tuple[AttentionSite, ...] = ()

    def features(self, images: Tensor) -> Tensor:
        """Give the representation before the head: [B, D] (classification) or [B, D, H, W] (segmentation)."""
        raise NotImplementedError
