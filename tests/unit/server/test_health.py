"""Alarms: what is past a bound, what is not, and that a resumed run judges as an unbroken one."""

import numpy as np
import pytest

from common.attention.health_sums import HealthSums
from server.health import CORNER_EXCESS, CORNERS, HealthMonitor, shortcut

NAMES = ("gate/saturation", "rows/collapse", "rows/sink", "map/border", *(f"map/{corner}" for corner in CORNERS))
PATIENTS = 40


def sums(corner=0.0, everywhere=0.0, both=0.0, noise=0.01, **levels):
    """Corners at a fair 1/16, plus `corner` (upper right) or `everywhere` in class 1, plus `both` in both classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(PATIENTS) % 2
    values = np.full((PATIENTS, len(NAMES)), 1 / 16) + rng.normal(0, noise, (PATIENTS, len(NAMES)))
    for name, level in levels.items():
        values[:, [n.endswith(name) for n in NAMES]] = level
    values[:, NAMES.index("map/corner-ne")] += both + corner * labels
    values[:, [n.rsplit("/", 1)[1] in CORNERS for n in NAMES]] += everywhere * labels[:, None]
    return HealthSums.of(NAMES, 2, [f"p{i}" for i in range(PATIENTS)], labels.tolist(), values.clip(0, 1))


def alarms(found):
    return {family for family, finding in found.items() if finding.alarming}


def test_a_healthy_site_raises_no_alarm():
    assert alarms(HealthMonitor().look("a", sums())) == set()


@pytest.mark.parametrize(
    ("levels", "family"),
    [
        ({"saturation": 0.9}, "saturation"),
        ({"collapse": 0.95}, "collapse"),
        ({"sink": 0.6}, "sink"),
        ({"border": 0.95}, "border"),
    ],
)
def test_each_level_has_its_alarm(levels, family):
    assert alarms(HealthMonitor().look("a", sums(**levels))) == {family}


def test_saturation_alarms_when_it_rises():
    monitor = HealthMonitor()
    assert alarms(monitor.look("a", sums(saturation=0.1))) == set()
    assert alarms(monitor.look("a", sums(saturation=0.29))) == set()
    assert alarms(monitor.look("a", sums(saturation=0.31))) == {"saturation"}
    assert alarms(monitor.look("b", sums(saturation=0.31))) == set()


def test_a_resumed_run_remembers_the_first_saturation():
    first, resumed = HealthMonitor(), HealthMonitor()
    record = {family: found.value for family, found in first.look("a", sums(saturation=0.1)).items()}
    resumed.remember("a", record)
    assert resumed.look("a", sums(saturation=0.4)) == first.look("a", sums(saturation=0.4))


def test_a_mark_in_one_class_is_a_shortcut():
    found = HealthMonitor().look("a", sums(corner=0.08))
    assert alarms(found) == {"shortcut"}
    assert found["shortcut"].statistic == "map/corner-ne"
    assert found["shortcut"].value == pytest.approx(0.08, abs=0.01)


def test_a_mark_in_both_classes_is_none():
    assert alarms(HealthMonitor().look("a", sums(both=0.3))) == set()


def test_attention_that_spreads_to_all_corners_is_none():
    assert alarms(HealthMonitor().look("a", sums(everywhere=0.2))) == set()


def test_a_difference_within_its_error_is_none():
    found = shortcut(sums(corner=0.05, noise=0.3))
    assert found.bound > CORNER_EXCESS
    assert not found.alarming


def test_no_classes_no_shortcut():
    one = HealthSums.of(NAMES, 1, ["a", "b"], [0, 0], np.full((2, len(NAMES)), 0.1))
    assert shortcut(one) is None


def test_a_class_that_nobody_has_raises_no_alarm_and_hides_none():
    found = sums(corner=0.08)
    blank = np.zeros((1, len(NAMES)))
    wider = HealthSums(
        NAMES, np.append(found.counts, 0), *(np.vstack([part, blank]) for part in (found.total, found.squares))
    )
    assert shortcut(wider) == shortcut(found)
