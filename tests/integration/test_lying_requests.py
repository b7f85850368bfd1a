"""A server that asks one site for something else than the others, or for a sum under another name, gets nothing."""

import json
from dataclasses import replace

import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict

import server.secure
from client.app import app as client_app
from client.secure import answer, policy_of, read_terms
from client.site import MEMBERS, open_site
from client.site_settings import SiteConfig, read_site_config
from common.errors import AggregationError, ConfigError, SecureAggregationError
from common.messages import Hello, HelloRequest, SumRequest, pack, unpack
from common.secagg.identity import Identity, Roster
from common.secagg.params import Params
from server.app import coordinate
from server.secure import terms_of
from simulations.engine import LocalGrid
from tests.federations import SITES, small_config
from tests.secure_sums import params, refused

FOUR = (*SITES, "valley")
CONFIG = small_config(rounds=1, attention__every=0, cohort__quorum=3, secure_aggregation__enabled=True)


class Lying(LocalGrid):
    """Changes what one site is asked to do."""

    def __init__(self, request):
        super().__init__(CONFIG, [[site] for site in FOUR], 0)
        self.request, self.masked = request, 0

    def send_and_receive(self, messages, *, timeout=None):
        sent = list(messages)
        for message in sent:
            body = dict(message.content.config_records["body"])
            if message.metadata.message_type == MessageType.TRAIN and message.metadata.dst_node_id == 2 + 1:
                body |= self.request
            records = {**message.content, "body": ConfigRecord(body)}
            message.__dict__["_content"] = RecordDict(records)
        answers = list(super().send_and_receive(sent, timeout=timeout))
        self.masked += sum("segments" in answer.content for answer in answers if not answer.has_error())
        return answers


def played(request):
    grid, records = Lying(request), []
    try:
        coordinate(grid, CONFIG, records.append)
    finally:
        grid.close()
    return grid, records


def test_without_a_lie_all_four_send():
    grid, [record] = played({})
    assert not record.failures
    assert grid.masked >= 4


@pytest.mark.parametrize("lie", [{"mu": 1e9}, {"measure": True}, {"round": 2}, {"noise_multiplier": 3.0}], ids=str)
def test_a_site_that_is_asked_something_of_its_own_sends_nothing(lie):
    # With a proximal weight of 1e9 for all but one, the sum would be the update of the one.
    _, [record] = played(lie)
    assert set(record.failures) == {FOUR[1]}
    assert record.failures[FOUR[1]] in ("model", "another-sum", "layout", "protocol")


@pytest.mark.parametrize(
    "lie",
    [{"run": "other"}, {"round": 7}, {"purpose": "judge"}, {"purpose": "again"}, {"round": 1.0}, {"colluders": 2}],
    ids=str,
)
def test_a_sum_under_another_name_is_refused_by_all(lie, monkeypatch):
    # With more colluders than the run's, fewer shares of noise than were priced would be certain.
    # Under another name a round could be summed a second time, over other sites.
    monkeypatch.setattr(server.secure, "Params", lambda **terms: Params(**{**terms, **lie}))
    with pytest.raises(AggregationError, match=r"valley: (another-sum|malformed)"):
        played({})


GOOD = json.loads(terms_of(params("abcd")))


def test_terms_survive_their_text():
    assert read_terms(json.dumps(GOOD)) == params("abcd")


@pytest.mark.parametrize(
    "changes",
    [
        {"round": 1.0},
        {"round": "1"},
        {"round": True},
        {"fewest": float("nan")},
        {"colluders": 0.5},
        {"signed": 0},
        {"sites": "abcd"},
        {"sites": [["a"], ["b"], ["c"]]},
        {"sites": [1, 2, 3]},
        {"run": 5},
        {"more": 1},
        {"length": None},
    ],
    ids=str,
)
def test_terms_of_other_types_are_no_terms(changes):
    with refused("malformed"):
        read_terms(json.dumps({**GOOD, **changes}))


@pytest.mark.parametrize("text", ["", "[]", "3", "[" * 100_000, "{}", '{"run": "a"}'], ids=lambda text: text[:5])
def test_text_that_is_no_terms(text):
    with refused("malformed"):
        read_terms(text)


def terms(**changes):
    """The terms of a sum of this run, as its server writes them."""
    named = {"run": CONFIG.digest(), "colluders": CONFIG.secure_aggregation.colluders}
    return terms_of(params(FOUR, **named, **changes))


def asked(stage, text, notes):
    site = open_site(CONFIG, {MEMBERS: FOUR[0]})
    return answer(CONFIG, site, notes, SumRequest(stage=stage, terms=text))


def test_a_sum_begins_with_adverts_and_goes_on_under_one_name():
    with refused("out-of-order"):
        asked("share", terms(), {})
    notes = {}
    assert asked("advertise", terms(), notes).content
    for stage, text in (("share", terms(attempt=1)), ("unmask", terms(round=2)), ("dance", terms()), ("", terms())):
        with refused("out-of-order"):
            asked(stage, text, notes)


def test_a_site_advertises_in_no_sum_of_another_run():
    with refused("another-sum"):
        asked("advertise", terms_of(params(FOUR)), {})
    with refused("another-sum"):
        asked("advertise", terms(purpose="again"), {})


def test_a_key_of_another_site_is_refused(tmp_path):
    other = Identity.fresh("somebody-else")
    other.write(tmp_path / "key")
    Roster({FOUR[0]: other.public}).write(tmp_path / "roster.json")
    site = replace(open_site(CONFIG, {MEMBERS: FOUR[0]}), identity=(tmp_path / "key", tmp_path / "roster.json"))
    with pytest.raises(ConfigError, match="'somebody-else' and the site is 'north'"):
        answer(CONFIG, site, {}, SumRequest(stage="advertise", terms=terms()))


def hospital(tmp_path, **insists):
    identity = Identity.fresh("a")
    identity.write(tmp_path / "a.key")
    Roster({"a": identity.public}).write(tmp_path / "roster.json")
    lines = [f"{key} = {json.dumps(value)}" for key, value in insists.items()]
    (tmp_path / "site.toml").write_text(
        "\n".join(
            [
                'name = "a"\nstate = "state"\n[secure]\nidentity = "a.key"\nroster = "roster.json"',
                *lines,
                '[data]\nname = "phantom"\npatients-per-site = 6',
            ]
        )
    )
    return tmp_path / "site.toml"


def test_a_hospital_insists_on_more_than_the_run_says_and_never_on_less(tmp_path):
    path = hospital(tmp_path, **{"fewest-sites": 5, "colluders": 2, "consistency": "signed"})
    own = read_site_config(path)
    assert isinstance(own, SiteConfig)
    assert own.secure.roster.is_absolute()

    class Opened:
        insists = own.secure.policy

    policy = policy_of(CONFIG, Opened)
    assert (policy.fewest, policy.colluders, policy.signed, policy.rings) == (5, 2, True, (32,))
    sites = [f"s{number}" for number in range(8)]
    strict = {"fewest": 5, "colluders": 2, "signed": True}
    policy.check("s0", params(sites, **strict), "layout", "model")
    for name, looser in (("fewest", 4), ("colluders", 1), ("signed", False)):
        with pytest.raises(SecureAggregationError):
            policy.check("s0", params(sites, **{**strict, name: looser}), "layout", "model")


@pytest.mark.parametrize("budget", ["", "[budget]\nepsilon = 3.0\ndelta = 0.00001\n"])
def test_a_hospital_with_a_budget_tells_no_counts_to_a_run_that_promises_nothing(budget, tmp_path):
    path = hospital(tmp_path)
    path.write_text(path.read_text() + f'\npartition = "quantity"\npartition-sites = 1\n{budget}')
    config = small_config()
    grid = LocalGrid(config, [("north",)], 0)
    try:
        context = grid._contexts[2]
        context.node_config = {"site-config": str(path)}
        asked = Message(pack(HelloRequest(config_digest=config.digest())), dst_node_id=2, message_type="query")
        told = unpack(client_app(asked, context).content, Hello)
    finally:
        grid.close()
    assert (told.train_patients, told.train_images) == (0, 0) if budget else told.train_patients > 0
