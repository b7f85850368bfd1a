"""A run's results made from random numbers: what protocols would hand to the report, with awkward site names."""

from typing import Any

import numpy as np

from common.seeds import generator
from simulations.overlay import Overlay
from simulations.results import ALL_SOURCES, HELD_OUT_MEAN, WORST_SOURCE, Results
from simulations.tables import make_table

SITES = (
    "Northfield General",
    "St. Anna",
    "Universitätsklinikum Großhansdorf, Klinik für Radiologie und Nuklearmedizin",
    "Centre $x_1$ & <script>alert('x')</script>",
    "Ōsaka",
    "Riverside",
)
METHODS = {
    "federated": "one model, trained at all source sites, updates averaged",
    "local only": "each site's own model, judged at home",
    "pooled": "all source images in one place, which hospitals cannot do",
    "best single site": "the one local model that did best on the sources' validation images",
    "ensemble of locals": "mean of the local models' probabilities",
    "leave one site out": "federated without the site that judges",
}
SKILL = {
    "federated": 0.88,
    "local only": 0.83,
    "pooled": 0.89,
    "best single site": 0.80,
    "ensemble of locals": 0.85,
    "leave one site out": 0.84,
}


def made_results(
    sites: tuple[str, ...] = SITES,
    held_out: int = 1,
    seed: int = 1,
    metrics: tuple[str, ...] = ("auroc", "ece"),
    rounds: int = 12,
    skill: float = 0.0,
) -> Results:
    """Build results of a run; the last `held_out` sites never trained."""
    rng = generator(seed, "made-results")
    sources, targets = sites[: len(sites) - held_out], sites[len(sites) - held_out :]
    roles = {site: "held-out" if site in targets else "source" for site in sites}
    headline = _headline(rng, sources, targets, metrics, skill)
    return Results(
        record=_record(rng, roles, metrics, rounds),
        tables={
            "headline": make_table("headline", headline),
            "matrix": make_table("matrix", _matrix(rng, sources, sites, metrics[0])),
            "history": make_table("history", _history(rng, sources, metrics[0], rounds)),
            "add": make_table("add", _add(rng, sources)),
            "add_blocks": make_table("add_blocks", _blocks(rng, sources)),
            "distances": make_table("distances", _distances(generator(seed, "distances"), sources)),
            "health": make_table("health", _health(rng, sites)),
            "calibration": make_table("calibration", _calibration(rng, sites)),
            "differences": make_table("differences", _differences(rng, headline)),
        },
        overlays=[_overlay(rng, site, roles[site], k) for site in sites for k in range(3)],
        studies={"corruptions": _corruptions(metrics[0])},
    )


def empty_results() -> Results:
    """Build results whose tables and overlays are all empty."""
    full = made_results()
    return Results(record=full.record)


def _interval(rng: np.random.Generator, value: float, width: float) -> dict[str, float]:
    low, high = value - width * rng.uniform(0.8, 1.2), value + width * rng.uniform(0.7, 1.0)
    return {"value": value, "low": max(low, 0.0), "high": min(high, 1.0)}


def _headline(
    rng: np.random.Generator,
    sources: tuple[str, ...],
    targets: tuple[str, ...],
    metrics: tuple[str, ...],
    skill: float,
) -> list[dict[str, Any]]:
    rows = []
    hardness = {site: rng.normal(0, 0.03) for site in (*sources, *targets)}
    for metric in metrics:
        for method, level in SKILL.items():
            seen = [site for site in (*sources, *targets) if _has(method, site in targets)]
            values = {}
            for site in seen:
                base = level + skill + hardness[site] - (0.05 if site in targets else 0)
                value = float(np.clip(base + rng.normal(0, 0.012), 0, 0.995))
                values[site] = value if metric == "auroc" else 0.3 * (1 - value)
                new = site in targets or method == "leave one site out"
                rows.append(_row(rng, method, site, "held-out" if new else "in", metric, values[site]))
            inside = [values[site] for site in seen if site in sources and method != "leave one site out"]
            outside = [values[site] for site in seen if site not in sources or method == "leave one site out"]
            if inside:
                worst = min(inside) if metric == "auroc" else max(inside)
                rows.append(_row(rng, method, ALL_SOURCES, "in", metric, float(np.mean(inside))))
                rows.append(_row(rng, method, WORST_SOURCE, "in", metric, worst))
            if outside:
                rows.append(_row(rng, method, HELD_OUT_MEAN, "held-out", metric, float(np.mean(outside))))
    return rows


def _has(method: str, target: bool) -> bool:
    return not (target and method == "leave one site out")


def _row(rng: np.random.Generator, method: str, site: str, role: str, metric: str, value: float) -> dict[str, Any]:
    width = 0.045 if metric == "auroc" else 0.012
    return {
        "method": method,
        "site": site,
        "role": role,
        "metric": metric,
        **_interval(rng, value, width),
        "n": int(rng.integers(60, 320)),
        "seeds": 3,
        "seed_sd": float(rng.uniform(0.004, 0.012)),
    }


def _matrix(
    rng: np.random.Generator, sources: tuple[str, ...], sites: tuple[str, ...], metric: str
) -> list[dict[str, Any]]:
    rows = []
    for trained in (*sources, "federated", "pooled"):
        for judged in sites:
            home = 0.86 if trained == judged else 0.72
            value = float(np.clip((home if trained in sources else 0.88) + rng.normal(0, 0.05), 0.4, 0.99))
            count = int(rng.integers(60, 320))
            rows.append(
                {
                    "trained_on": trained,
                    "judged_on": judged,
                    "metric": metric,
                    **_interval(rng, value, 0.05),
                    "n": count,
                }
            )
    return rows


def _history(rng: np.random.Generator, sources: tuple[str, ...], metric: str, rounds: int) -> list[dict[str, Any]]:
    rows = []
    for method, level in (("federated", 0.88), ("pooled", 0.89), ("local only", 0.84)):
        for seed in (7, 8, 9):
            for site in sources:
                top, speed = level + rng.normal(0, 0.02), rng.uniform(0.25, 0.45)
                for round_ in range(1, rounds + 1):
                    rise = top - (top - 0.5) * np.exp(-speed * round_) + rng.normal(0, 0.008)
                    common = {"method": method, "seed": seed, "round": round_, "site": site}
                    rows.append({**common, "split": "val", "metric": metric, "value": float(rise)})
                    rows.append({**common, "split": "train", "metric": "loss", "value": float(1.3 * (1 - rise))})
    return rows


def _distances(rng: np.random.Generator, sites: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {
            "method": "federated",
            "seed": seed,
            "site": site,
            "distance": float(rng.normal(1.0, 0.6)),
            "noise": 0.4,
            "floor": 0.5,
        }
        for seed in (1, 2)
        for site in sites
    ]


def _health(rng: np.random.Generator, sites: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {
            "method": "federated",
            "seed": seed,
            "round": round_,
            "site": site,
            "family": family,
            "value": float(rng.random()),
            "alarm": "stage3.se/corner-ne" if (family, site) == ("shortcut", sites[0]) and round_ > 6 else "",
        }
        for seed in (1, 2)
        for round_ in (6, 11, 12)
        for site in sites
        for family in ("saturation", "border", "shortcut")
    ]


def _add(rng: np.random.Generator, sites: tuple[str, ...]) -> list[dict[str, Any]]:
    far = {site: rng.uniform(0.02, 0.2) for site in sites}
    return [
        {"site_a": a, "site_b": b, "add_w": 0.0 if a == b else float(far[a] + far[b])} for a in sites for b in sites
    ]


def _blocks(rng: np.random.Generator, sites: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = []
    for index in range(4):
        for i, a in enumerate(sites):
            for b in sites[i + 1 :]:
                w = float(rng.gamma(2, 0.01 * (index + 1)))
                js = w**2 if index < 3 else float("nan")
                kind = "histogram" if index < 3 else "scalars"
                rows.append(
                    {
                        "site_a": a,
                        "site_b": b,
                        "block": f"stage{index + 1}.se/gate_hist",
                        "kind": kind,
                        "js": js,
                        "w": w,
                    }
                )
    return rows


def _calibration(rng: np.random.Generator, sites: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = []
    for method in ("federated", "pooled", "local only"):
        for site in sites:
            bend = rng.uniform(0.8, 1.4)
            for index in range(10):
                confidence = (index + 0.5) / 10
                count = int(rng.integers(0, 40))
                observed = float(np.clip(confidence**bend + rng.normal(0, 0.04), 0, 1)) if count else float("nan")
                shown = confidence if count else float("nan")
                rows.append(
                    {
                        "method": method,
                        "site": site,
                        "bin": index,
                        "confidence": shown,
                        "observed": observed,
                        "count": count,
                    }
                )
    return rows


def _differences(rng: np.random.Generator, headline: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ours = {(row["site"], row["metric"]): row for row in headline if row["method"] == "federated"}
    rows = []
    for row in headline:
        mine = ours.get((row["site"], row["metric"]))
        if row["method"] == "federated" or mine is None or mine["role"] != row["role"]:
            continue
        gap = mine["value"] - row["value"]
        width = float(rng.uniform(0.015, 0.04)) * (1 if row["metric"] == "auroc" else 0.3)
        rows.append(
            {
                "method": "federated",
                "baseline": row["method"],
                "site": row["site"],
                "metric": row["metric"],
                "difference": gap,
                "low": gap - width,
                "high": gap + width,
                "n": mine["n"],
            }
        )
    return rows


def _overlay(rng: np.random.Generator, site: str, role: str, index: int) -> Overlay:
    size = 48
    y, x = np.mgrid[:size, :size] / size
    body = ((x - 0.5) ** 2 / 0.2 + (y - 0.5) ** 2 / 0.16 < 1) * 90.0
    cx, cy = rng.uniform(0.3, 0.7, 2)
    distance = np.hypot(x - cx, y - cy)
    image = body + 70 * np.exp(-((distance / 0.09) ** 2)) + rng.normal(0, 8, (size, size)) + 20
    drift = rng.normal(0, 0.06, 2)
    attention = np.exp(-((x - cx - drift[0]) ** 2 + (y - cy - drift[1]) ** 2) / 0.02) + 0.05
    positive = index < 2
    probability = float(rng.uniform(0.6, 0.99) if positive else rng.uniform(0.02, 0.3))
    return Overlay(
        site=site,
        role=role,
        caption=f"p(lesion) = {probability:.2f}",
        label="lesion" if positive else "no lesion",
        probability=probability,
        attention_site="stage3.gate",
        image=np.clip(image, 0, 255).astype(np.uint8),
        attention=(attention / attention.sum()).astype(np.float32),
        mask=(distance < 0.1).astype(np.uint8) if positive else np.zeros((size, size), np.uint8),
    )


def _record(rng: np.random.Generator, roles: dict[str, str], metrics: tuple[str, ...], rounds: int) -> dict[str, Any]:
    def part(images: int) -> dict[str, int]:
        return {"patients": images // 2, "images": images}

    return {
        "name": "phantom, six hospitals",
        "run": "20260301-101500-phantom",
        "created": "2026-03-01T10:15:00+00:00",
        "finished": "2026-03-01T10:16:42+00:00",
        "seeds": [7, 8, 9],
        "config": {"seed": 7, "rounds": rounds, "model.name": "se-convnet", "train.learning-rate": 0.003},
        "config_digest": "3f2a" * 16,
        "code": {"version": "0.1.0", "commit": "eb9f86a", "digest": "a1b2" * 16},
        "data": {
            "name": "phantom",
            "digest": "beef" * 16,
            "split_digest": "cafe" * 16,
            "licence": "made by this program; free of rights",
            "classes": ["no lesion", "lesion"],
            "mask_classes": ["background", "lesion"],
            "image_size": 48,
            "channels": 1,
            "sites": [
                {
                    "name": site,
                    "role": role,
                    "train": part(int(rng.integers(120, 420))),
                    "val": part(int(rng.integers(30, 90))),
                    "test": part(int(rng.integers(60, 240))),
                    "positive_share": float(rng.uniform(0.2, 0.6)),
                }
                for site, role in roles.items()
            ],
        },
        "environment": {"python": "3.11.9", "torch": "2.13.0", "flwr": "1.41.0", "platform": "Linux", "cpus": 2},
        "privacy": "none",
        "task": "binary",
        "metrics": list(metrics),
        "methods": dict(METHODS),
        "seconds": {"training": 71.5, "evaluation": 14.2, "report": 5.1},
        "notes": ["Phantom images are generated; they show that the machinery works, not that it heals."],
    }


def _corruptions(metric: str) -> dict[str, Any]:
    """A study of corruptions; at held-out sites the metric is undefined, as null from a file is."""
    rows, summary, roles = [], [], []
    for role, sites in (("source", 5), ("held-out", 1)):
        for place, name in enumerate(("gaussian_noise", "shot_noise", "motion_blur", "ring")):
            for severity in (1, 2, 3, 4, 5):
                drop = None if role == "held-out" and place == 3 else 0.02 * severity * (place + 1) / 2
                ends = {"drop_low": drop and drop - 0.02, "drop_high": drop and drop + 0.03}
                value = {"value": drop and 0.88 - drop, "clean": 0.88, "as_js": 0.99, "drop": drop, **ends}
                more = dict.fromkeys(("relative_robustness", "as_js_low", "as_js_high", "signature_shift"), 0.5)
                shares = dict.fromkeys(("flipped", "moved_alone", "flipped_alone"), 0.1)
                rows.append({"corruption": name, "severity": severity, "role": role, **value, **more, **shares})
            summary.append({key: rows[-1][key] for key in rows[-1] if key != "severity"})
        ended = {f"{key}{end}": 0.9 for key in ("clean", "drop", "mas") for end in ("", "_low", "_high")}
        roles.append({"role": role, "sites": sites, "images": 60 * sites, **ended})
    head = {"run": "made", "metric": metric, "modality": "ct", "seeds": [1, 2]}
    return {**head, "rows": rows, "summary": summary, "roles": roles}
