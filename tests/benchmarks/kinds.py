"""One table: kind of attention, parameters, what measuring it costs, and what its layers were held against."""

import argparse
import tempfile
from pathlib import Path

import torch
import workload
from capture import SIDE, share

from common.allocator import keep_freed_memory
from common.config import load_run_config
from common.models.build import build_model

KINDS = {
    "channel-gate": ("convnet", "se", "se, eca, cse, scse, cbam, two networks: 8.3e-7"),
    "spatial-gate": ("convnet", "spatial-gate", "sse, scse, cbam: 4.8e-7; abn, whole network: 7.2e-6"),
    "attention-gate": ("convnet", "attention-gate", "two published gates: 7.2e-7; CaraNet, whole network: 2.0e-4"),
    "feature-gate": ("convnet", "residual-attention", "residual_attention_stage3: 0"),
    "branch": ("convnet", "sk", "two published selective kernels: 4.3e-6"),
    "self-attention": ("vit", "self-attention", "non-local, PAM, criss-cross, MedKLIP, BioViL-T, TransAttUnet: 1.4e-6"),
    "cross-attention": ("convnet", "pooled-keys", "MedViT, CDDFuse, MCANet, MedKLIP: 1.2e-6"),
    "window": ("convnet", "window", "Swin-Unet, Swin UNETR: 4.2e-7"),
    "axial": ("convnet", "axial", "Axial-DeepLab, MedT: 3.5e-6"),
    "neighbourhood": ("convnet", "neighbourhood", "SASA, gathering and sums: 4.8e-7"),
    "pooling": ("convnet", "abmil", "ABMIL: 2.1e-7"),
}
"""Kind to a body and a layer that stand for it, and the largest difference from its reference outputs, as
`python -m pytest tests/golden` prints it."""
BARS = {"self-attention": 0.20, "cross-attention": 0.20, "window": 0.20, "axial": 0.20, "neighbourhood": 0.20}


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="rounds whose median counts")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    keep_freed_memory()
    print("| kind | layer, in | parameters | of them attention | capture, % of a run | bar | largest difference from |")
    print("|" + " --- |" * 7)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kinds.npz"
        workload.write(path, workload.Size(sites=1, train=240, val=60))
        for kind, (body, layer, golden) in KINDS.items():
            cost = share(path, {"model.name": body, "model.attention": layer}, repeats)["run_share"]
            size, own = parameters(body, layer)
            row = (
                kind,
                f"`{layer}`, {body}",
                f"{size:,}",
                f"{own:,}",
                f"{cost:.1%}",
                f"{BARS.get(kind, 0.10):.0%}",
                golden,
            )
            print(f"| {' | '.join(row)} |", flush=True)


def parameters(body: str, layer: str) -> tuple[int, int]:
    """Count a model's parameters, and how many more they are than without attention."""
    sizes = []
    for name in (layer, "none"):
        settings = load_run_config({"model.name": body, "model.attention": name}).model
        model = build_model(settings, 1, 1, SIDE, seed=0)
        sizes.append(sum(parameter.numel() for parameter in model.parameters()))
    return sizes[0], sizes[0] - sizes[1]


if __name__ == "__main__":
    main()
