"""Models that became bodies with a setting for their attention are what they were, bit for bit."""

import hashlib

import numpy as np
import pytest
import torch

from common.config import ModelSection
from common.models.build import build_model

BEFORE = {
    ("se-convnet", "convnet", "se", 1, 2, 28): (
        "1a4d1ca02f5ffa3708ed4b5206e7940520bb2834424427457c046a07174c8c23",
        "5fa8d3c99b51b631b07cbcb2fa331d65e2647e5d59c8d26a793d4aee803add34",
        "5e551c0680bb402a586a837e60204aed43f58b8d27a9cc36f6e681f81fb97b3f",
    ),
    ("se-convnet", "convnet", "se", 3, 1, 48): (
        "1a4d1ca02f5ffa3708ed4b5206e7940520bb2834424427457c046a07174c8c23",
        "0003b4902be77575b4ed5bc99a88e7a5aedc5ccb9fc3c355f3fc1b339854dcb9",
        "985dc5e555e12d1de878d4dc0147825aaac7c4f8c004e3303bc614429a80a855",
    ),
    ("cbam-resnet", "resnet-ws", "cbam", 1, 2, 28): (
        "6d73d73dc56ae388dd274b64d74916510e7566697f165d5379dab7e0da7d6725",
        "94c95710d5f433f1e3b6c9406473b1400116157062dc96f058ea9df1b0317b86",
        "b2facd647d2978fd29ae0c60e85679dd2fcbbf7232def9a325cdbd7db063f64a",
    ),
    ("cbam-resnet", "resnet-ws", "cbam", 3, 1, 48): (
        "6d73d73dc56ae388dd274b64d74916510e7566697f165d5379dab7e0da7d6725",
        "6d278bee7e3129c0c86cdef28a4c245b78a6cf67a6171554f73012082a6b1250",
        "541f598db0d7d8d8bc2e458bc6a0e321c3e324e55350944eb326a8cb7aad4ae8",
    ),
    ("vit-tiny", "vit", "self-attention", 1, 2, 28): (
        "3faf8082da886adae4d99a6331593f38e4a95ad4c5617e295519ee5f29745944",
        "f0a3b4bbc4fa062647d76ee58c64bb6ced35b2b51bcf81801570047875d92da4",
        "81572c1d6546aac5781cbb33e7f36364f32ff049fb26b216d47fd41607744a40",
    ),
    ("vit-tiny", "vit", "self-attention", 3, 1, 48): (
        "3faf8082da886adae4d99a6331593f38e4a95ad4c5617e295519ee5f29745944",
        "bb4b76a9d24abab70d93d1ce8d9e72d1bb7eb0766396ebbcd3f342f8b676825c",
        "b4d294e2894b0cd5b9e3345b0da092cd02668393db85474ac924b60235e54448",
    ),
    ("attention-unet", "unet", "attention-gate", 1, 2, 28): (
        "123a5101c9b48e44ab7edbba0b9c8b4ab4bd67c9463b9cc052475dce7f4c1cd7",
        "4eab5a805fa97b20cc207d354da301e9affe2bcbe02b8db22fe7bbec1b5f469e",
        "8f5e76ccf906623ff51a02bf415cfc8cc832a8505646e29b468058cb2afed9fa",
    ),
    ("attention-unet", "unet", "attention-gate", 3, 1, 48): (
        "123a5101c9b48e44ab7edbba0b9c8b4ab4bd67c9463b9cc052475dce7f4c1cd7",
        "7d9cd2b1ca5c9de49f6e1b24add727f0894211ba2a09155223692b694e392d28",
        "acc76b0c7373befa7f3584c0901777116e8ea005f069f0d2033ec1f43628dfe7",
    ),
}
"""Preset, body, its attention, channels, outputs and side: SHA-256 of the names and of the initial arrays, and of the
logits in float64 to six decimals; computed when each model still had a file of its own."""


def sha(*parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def build(name, attention, channels, outputs, size):
    section = ModelSection(name=name, width=16, attention=attention)
    return build_model(section, channels, outputs, size, seed=7, dense=name in ("attention-unet", "unet"))


@pytest.mark.parametrize("case", list(BEFORE), ids=lambda case: f"{case[0]}-{case[3]}")
def test_presets_keep_their_arrays_and_answers(case):
    preset, body, attention, *shape = case
    source = torch.Generator().manual_seed(3)
    images = torch.rand(2, shape[0], shape[2], shape[2], generator=source) * 2 - 1
    for name, layer in ((preset, ""), (preset, attention), (body, ""), (body, attention)):
        model = build(name, layer, *shape).eval()
        arrays = model.state_dict()
        found = [sha("\n".join(arrays).encode()), sha(*(array.numpy().tobytes() for array in arrays.values()))]
        with torch.no_grad():
            logits = model.double()(images.double()).numpy()
        assert (*found, sha(np.round(logits, 6).tobytes())) == BEFORE[case]
