"""What a site refuses before any work, by its own budget and its patients, whatever the server says first."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.charge import charged
from client.site import open_site
from common.errors import BudgetExhaustedError, ConfigError, DataError, PrivacyError
from common.privacy.plan import Plan
from tests.federations import small_config

PRIVATE = {"privacy__mechanism": "gaussian", "privacy__fewest_patients": 1, "privacy__noise_multiplier": 20.0}
CENTRAL = {**PRIVATE, "privacy__placement": "central"}


def hospital(folder: Path, config, budget=""):
    (folder / "site.toml").write_text(
        f'name = "a"\nstate = "state"\n[data]\nname = "phantom"\npatients-per-site = 6\npartition = "quantity"\n'
        f"partition-sites = 1\n{budget}"
    )
    return open_site(config, {"site-config": str(folder / "site.toml")})


BUDGET = "[budget]\nepsilon = 8.0\ndelta = 0.00001\n"


def pay(config, site):
    with charged(config, site, Plan(config, site.cohort).of_training(1), []) as charge:
        charge.leave({})


def test_a_run_within_the_budget_is_charged(tmp_path):
    config = small_config(**PRIVATE)
    pay(config, hospital(tmp_path, config, BUDGET))
    assert '"what": "released"' in (tmp_path / "state" / "ledger" / "ledger.jsonl").read_text()


def test_noise_that_the_server_adds_is_none_to_a_budget_that_does_not_trust_it(tmp_path):
    config = small_config(**CENTRAL)
    with pytest.raises(PrivacyError, match="trusts-server"):
        pay(config, hospital(tmp_path, config, BUDGET))
    assert not (tmp_path / "state" / "ledger").exists()
    pay(config, hospital(tmp_path, config, f"{BUDGET}trusts-server = true\n"))
    assert '"placement": "central"' in (tmp_path / "state" / "ledger" / "ledger.jsonl").read_text()


def test_a_run_without_noise_is_more_than_a_budget(tmp_path):
    config = small_config()
    with pytest.raises(BudgetExhaustedError):
        pay(config, hospital(tmp_path, config, BUDGET))
    pay(config, hospital(tmp_path, config))


def test_too_few_patients_take_no_part_though_nobody_said_hello(tmp_path):
    config = small_config(**{**PRIVATE, "privacy__fewest_patients": 500})
    with pytest.raises(DataError, match="fewest-patients"):
        pay(config, hospital(tmp_path, config, BUDGET))


def test_a_delta_that_many_patients_outnumber_is_refused(tmp_path):
    config = small_config(**PRIVATE, privacy__delta=1e-3)
    budget = "[budget]\nepsilon = 8.0\ndelta = 0.001\n"
    site = hospital(tmp_path, config, budget)
    train = replace(site.data.train, patients=np.array([f"p{number}" for number in range(1000)]))
    site = replace(site, data=replace(site.data, train=train))
    with pytest.raises(ConfigError, match="delta"):
        pay(config, site)


def test_a_run_whose_delta_is_larger_than_the_sites_is_refused(tmp_path):
    config = small_config(**PRIVATE, privacy__delta=1e-4)
    with pytest.raises(BudgetExhaustedError, match=r"Lower `privacy\.delta`"):
        pay(config, hospital(tmp_path, config, BUDGET))


def test_a_site_without_a_folder_keeps_no_ledger_and_so_takes_no_part(tmp_path):
    config = small_config(**PRIVATE)
    site = replace(hospital(tmp_path, config, BUDGET), ledger=None)
    with pytest.raises(ConfigError, match="Set `out`"):
        pay(config, site)


def test_a_site_that_allows_less_than_the_run_offers_is_asked_no_more(tmp_path):
    config = small_config(**{**PRIVATE, "privacy__noise_multiplier": 0.4}, privacy__epsilon=90.0)
    with pytest.raises(BudgetExhaustedError):
        pay(config, hospital(tmp_path, config, BUDGET))
    (tmp_path / "other").mkdir()
    pay(config, hospital(tmp_path / "other", config, BUDGET.replace("8.0", "90.0")))
