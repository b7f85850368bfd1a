"""Made sites: seeded, no patient divided, skewed in what the name says and in nothing else."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import DataSection, load_run_config
from common.data.base import Dataset
from common.data.partition import partition
from common.data.phantom_scanner import SCANNERS, apply_scanner
from common.errors import ConfigError, DataError
from common.seeds import generator

Make = Callable[..., Dataset]


def choose(name: str, sites: int = 4, alpha: float = 0.5, seed: int = 7) -> DataSection:
    return load_run_config(
        {"data.partition": name, "data.partition-sites": sites, "data.partition-alpha": alpha, "data.seed": seed}
    ).data


def flat(count: int, labels: np.ndarray | None = None) -> Dataset:
    """One image per patient, one site."""
    return Dataset(
        name="flat",
        images=np.full((count, 1, 4, 4), 100, dtype=np.uint8),
        patients=np.array([f"p{index:05}" for index in range(count)]),
        sites=np.zeros(count, dtype=np.int64),
        site_names=("all",),
        labels=labels,
        classes=("0", "1", "2", "3"),
    )


def label_spread(dataset: Dataset, sites: int) -> float:
    """Mean total-variation distance of the sites' label shares from the whole."""
    assert dataset.labels is not None
    whole = np.bincount(dataset.labels, minlength=4) / len(dataset)
    shares = [np.bincount(dataset.labels[dataset.sites == site], minlength=4) for site in range(sites)]
    return float(np.mean([np.abs(share / share.sum() - whole).sum() / 2 for share in shares]))


def test_natural_keeps_the_data_set(make_dataset: Make) -> None:
    dataset = make_dataset()
    assert partition(dataset, choose("natural")) is dataset


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["dirichlet", "quantity", "scanner"]),
    st.integers(1, 6),
    st.floats(0.01, 100),
    st.integers(0, 2**40),
    st.integers(18, 60),
)
def test_whole_patients_at_least_three_per_site(name: str, sites: int, alpha: float, seed: int, patients: int) -> None:
    owner = np.random.default_rng(seed).integers(0, patients, 4 * patients)
    owner[:patients] = np.arange(patients)
    dataset = Dataset(
        name="several",
        images=np.zeros((len(owner), 1, 2, 2), dtype=np.uint8),
        patients=np.array([f"p{index}" for index in owner]),
        sites=np.zeros(len(owner), dtype=np.int64),
        site_names=("all",),
        labels=np.random.default_rng(seed).integers(0, 4, len(owner)),
        classes=("0", "1", "2", "3"),
    )
    made = partition(dataset, choose(name, sites, alpha, seed)).check()
    pairs = set(zip(made.patients.tolist(), made.sites.tolist(), strict=True))
    assert len(pairs) == patients
    assert np.bincount([site for _, site in pairs], minlength=sites).min() >= 3
    assert len(made.site_names) == sites


@pytest.mark.parametrize("name", ["dirichlet", "quantity", "scanner"])
def test_seeded(name: str, make_dataset: Make) -> None:
    dataset = make_dataset(patients=40)
    once, again = (partition(dataset, choose(name)) for _ in range(2))
    assert once.digest() == again.digest()
    assert partition(dataset, choose(name, seed=8)).digest() != once.digest()


def test_dirichlet_skews_labels_more_with_smaller_alpha() -> None:
    labels = np.random.default_rng(0).integers(0, 4, 4000)
    spreads = [
        label_spread(partition(flat(4000, labels), choose("dirichlet", 4, alpha)), 4) for alpha in (0.1, 1, 1000)
    ]
    assert spreads[0] > spreads[1] > spreads[2]
    assert spreads[2] < 0.03


def test_quantity_skews_sizes_and_not_labels() -> None:
    labels = np.random.default_rng(0).integers(0, 4, 4000)
    made = partition(flat(4000, labels), choose("quantity", 4, 1.0))
    sizes = np.bincount(made.sites, minlength=4)
    assert sizes.max() > 2 * sizes.min()
    assert label_spread(made, 4) < 0.05


def test_dirichlet_shares_follow_their_law() -> None:
    """With α = 1 and 2 sites, a site's share of the patients is uniform on [0, 1]: mean 1/2, variance 1/12."""
    shares = [(partition(flat(500), choose("quantity", 2, 1.0, seed)).sites == 0).mean() for seed in range(200)]
    assert np.mean(shares) == pytest.approx(1 / 2, abs=0.05)
    assert np.var(shares) == pytest.approx(1 / 12, abs=0.015)


def test_scanner_shares_equally_and_applies_the_presets() -> None:
    made = partition(flat(41), choose("scanner", 4))
    assert sorted(np.bincount(made.sites).tolist()) == [10, 10, 10, 11]
    assert made.site_names == tuple(SCANNERS)[:4]
    rows = made.sites == 1
    twin = apply_scanner(flat(41).images[rows], SCANNERS["soft"], generator(7, "partition", "scanner", "soft"))
    assert np.array_equal(made.images[rows], twin)
    assert flat(41).images.min() == 100


def test_equal_names_at_two_sites_stay_two_patients(make_dataset: Make) -> None:
    made = partition(make_dataset(patients=10, sites=3), choose("quantity", 2))
    assert len(np.unique(made.patients)) == 30


def test_multilabel_is_skewed_too() -> None:
    labels = np.random.default_rng(0).integers(0, 2, (400, 4)).astype(np.uint8)
    made = partition(flat(400, labels), choose("dirichlet", 4, 0.1)).check()
    assert np.bincount(made.sites, minlength=4).min() >= 3


@pytest.mark.parametrize("name", ["dirichlet", "quantity", "scanner"])
@pytest.mark.parametrize("parts", [(0, 1, 2), (0, 2)])
def test_every_site_gets_of_each_official_part(name: str, parts: tuple[int, ...]) -> None:
    labels = np.random.default_rng(0).integers(0, 4, 60)
    splits = np.array(parts, dtype=np.int8)[np.arange(60) % len(parts)]
    for seed in range(10):
        made = partition(replace(flat(60, labels), splits=splits), choose(name, 5, 0.05, seed)).check()
        assert made.splits is not None
        counts = [np.bincount(made.sites[made.splits == part], minlength=5).min() for part in parts]
        assert min(counts) >= 1
        assert counts[0] >= 4 - len(parts)


def test_too_few_of_an_official_part() -> None:
    splits = np.array([0] * 30 + [1] * 8 + [2] * 2, dtype=np.int8)
    with pytest.raises(DataError, match="2 patients of the official test cannot make 3 sites"):
        partition(replace(flat(40), splits=splits), choose("quantity", 3))


def test_what_cannot_be_made() -> None:
    with pytest.raises(DataError, match=r"10 patients cannot make 4 sites.*up to 3"):
        partition(flat(10), choose("quantity", 4))
    with pytest.raises(DataError, match="skews labels and there are none"):
        partition(flat(40), choose("dirichlet", 4))
    with pytest.raises(ConfigError, match=r"there are \d+ scanners"):
        partition(flat(4000), choose("scanner", 99))
