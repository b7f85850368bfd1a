"""The device: what is there, or a clear answer."""

from contextlib import nullcontext

import pytest
import torch

from common.device import choose_device, precision
from common.errors import ConfigError


@pytest.fixture
def gpus(monkeypatch):
    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


def test_auto_takes_a_gpu_when_there_is_one(gpus):
    gpus(0)
    assert choose_device("auto") == torch.device("cpu")
    gpus(2)
    assert choose_device("auto") == torch.device("cuda:0")


def test_names_are_followed(gpus):
    gpus(2)
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("cuda") == torch.device("cuda:0")
    assert choose_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize(("count", "wish"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2"), (2, "cuda:99")])
def test_a_gpu_that_is_not_there_is_refused(gpus, count, wish):
    gpus(count)
    with pytest.raises(ConfigError, match=f"{wish!r} and this machine has {count} usable"):
        choose_device(wish)


@pytest.mark.parametrize("wish", ["gpu", "cuda:", "cuda:x", "cuda:-1", "", "mps", "cpu:0", "cpu\n"])
def test_any_other_name_is_refused(wish):
    with pytest.raises(ConfigError, match="Allowed are auto, cpu"):
        choose_device(wish)


def test_bfloat16_only_on_cuda_and_only_when_wished():
    assert isinstance(precision(torch.device("cpu"), True), nullcontext)
    assert isinstance(precision(torch.device("cuda:0"), False), nullcontext)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_autocast_on_a_gpu_computes_in_bfloat16():
    device = choose_device("auto")
    square = torch.ones(4, 4, device=device)
    with precision(device, True):
        assert (square @ square).dtype == torch.bfloat16
    assert (square @ square).dtype == torch.float32
