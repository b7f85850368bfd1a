"""What secure aggregation refuses, each by its name."""

from dataclasses import replace

import numpy as np
import pytest

from common.errors import ConfigError
from common.secagg.identity import Identity, Roster
from common.secagg.keys import Tag, fresh_secret
from common.secagg.params import Params, SitePolicy
from common.secagg.parcels import Advert, UnmaskRequest, pack_bytes, unpack_bytes
from common.secagg.server import ServerSession
from common.secagg.shamir import opened, shares
from common.secagg.site import SiteSession, tag_key
from common.secagg.wire import join, split
from tests.secure_sums import SERVER, Play, params, refused

SITES = ("a", "b", "c", "d")


def played(upto, **changes):
    play = Play(params(SITES, **changes))
    for stage in ("advertise", "share", "mask", "vote", "unmask"):
        if stage == upto:
            return play
        if stage != "vote" or play.terms.signed:
            getattr(play, stage)()
    return play


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"sites": ("a", "b")}, "too-few-sites"),
        ({"sites": ("a", "b", "a")}, "too-few-sites"),
        ({"fewest": 2}, "too-few-sites"),
        ({"fewest": 5}, "too-few-sites"),
        ({"ring_bits": 16}, "ring"),
        ({"colluders": 3}, "colluders"),
    ],
)
def test_terms_that_protect_nobody(changes, name):
    with refused(name):
        params(changes.pop("sites", SITES), **changes)


@pytest.mark.parametrize(
    ("policy", "changes", "name"),
    [
        (SitePolicy(fewest=4), {}, "too-few-sites"),
        (SitePolicy(colluders=1), {}, "colluders"),
        (SitePolicy(rings=(64,)), {}, "ring"),
        (SitePolicy(signed=True), {}, "consistency"),
        (SitePolicy(most_values=10), {}, "too-long"),
        (SitePolicy(), {"layout": "other"}, "layout"),
        (SitePolicy(), {"model": "other"}, "model"),
    ],
)
def test_a_run_cannot_loosen_what_a_site_insists_on(policy, changes, name):
    with refused(name):
        policy.check("a", params(SITES, **changes), "layout", "model")
    SitePolicy().check("a", params(SITES), "layout", "model")


def test_a_site_that_is_not_named_takes_no_part():
    with refused("not-asked"):
        SitePolicy().check("z", params(SITES), "layout", "model")


@pytest.mark.parametrize("field", ["run", "purpose", "layout", "model"])
def test_everything_public_is_in_the_context(field):
    assert params(SITES).context != params(SITES, **{field: "other"}).context
    assert params(SITES).context != params(SITES, server_key="ab" * 32).context


@pytest.mark.parametrize("changes", [{"round": 2}, {"attempt": 1}, {"fewest": 4}, {"colluders": 1}, {"ring_bits": 64}])
def test_numbers_are_in_the_context(changes):
    assert params(SITES).context != params(SITES, **changes).context


def test_a_wrong_signature_on_an_advert():
    play = played("share")
    adverts = play.server.adverts()
    adverts["b"] = replace(adverts["b"], signature=bytes(64))
    with refused("wrong-signature"):
        play.sites["a"].share(adverts)


@pytest.mark.parametrize("changes", [{"round": 2}, {"run": "other"}, {"attempt": 1}])
def test_a_replayed_advert(changes):
    play, other = played("share"), Play(params(SITES, **changes))
    other.identities, other.roster = play.identities, play.roster
    other.sites = {site: other.session(site) for site in SITES}
    adverts = {**play.server.adverts(), "b": other.sites["b"].advertise()}
    with refused("wrong-signature"):
        play.sites["a"].share(adverts)


def test_a_swapped_key():
    play = played("share")
    adverts = play.server.adverts()
    middle = SiteSession(Identity.fresh("b"), play.roster, SitePolicy(), play.terms).advertise()
    with refused("wrong-signature"):
        play.sites["a"].share({**adverts, "b": middle})


def test_its_own_key_changed():
    play = played("share")
    adverts = play.server.adverts()
    with refused("own-key-changed"):
        play.sites["a"].share({**adverts, "a": replace(adverts["a"], mask_key=bytes(32))})


def test_one_key_under_two_names():
    play = played("share")
    adverts = play.server.adverts()
    twin = replace(adverts["c"], share_key=adverts["b"].share_key)
    with refused("sybil"):
        play.sites["a"].share({**adverts, "c": twin})
    with refused("sybil"):
        Roster({"a": bytes(32), "b": bytes(32)})


def test_a_site_that_is_in_no_roster():
    play = played("share")
    play.sites["a"].roster = Roster({site: key for site, key in play.roster.keys.items() if site != "d"})
    with refused("unknown-site"):
        play.sites["a"].share(play.server.adverts())


def test_a_low_order_key():
    play = played("share")
    session = play.session("b")
    session.advertise()
    unsigned = Advert("b", bytes(32), session._adverts["b"].mask_key, b"")
    signature = play.identities["b"].sign(play.terms.context, "advert", unsigned.payload)
    with refused("low-order-key"):
        play.sites["a"].share({**play.server.adverts(), "b": replace(unsigned, signature=signature)})


def test_fewer_adverts_than_the_least():
    play = Play(params(SITES, fewest=4), lost={"d": "advertise"})
    play.advertise()
    with refused("too-few-sites"):
        play.server.adverts()
    with refused("too-few-sites"):  # and the site sees it too, whatever the server says
        play.sites["a"].share(dict(play.server._adverts))


def test_stages_out_of_order_and_twice():
    play = played("share")
    with refused("out-of-order"):
        play.sites["a"].advertise()
    with refused("out-of-order"):
        play.sites["a"].mask([play.vectors["a"]], {})
    with refused("out-of-order"):
        play.sites["a"].unmask(UnmaskRequest(SITES, (), {}))


@pytest.mark.parametrize("how", ["changed", "truncated", "misdirected"])
def test_a_sealed_share_that_was_tampered_with(how):
    play = played("mask")
    sealed = play.server.sealed_for()
    wrong = {
        "changed": lambda: sealed["a"]["b"][:-1] + bytes([sealed["a"]["b"][-1] ^ 1]),
        "truncated": lambda: sealed["a"]["b"][:20],
        "misdirected": lambda: sealed["c"]["b"],
    }[how]()
    with refused("sealed-wrong"):
        play.sites["a"].mask([play.vectors["a"].copy()], {**sealed["a"], "b": wrong})


def test_shares_of_a_stranger_and_of_too_few():
    play = played("mask")
    sealed = play.server.sealed_for()
    with refused("unknown-site"):
        play.sites["a"].mask([play.vectors["a"].copy()], {**sealed["a"], "z": b""})
    with refused("too-few-sites"):
        play.sites["b"].mask([play.vectors["b"].copy()], {"a": sealed["b"]["a"]})


@pytest.mark.parametrize(
    "pieces",
    [
        [np.zeros(11, np.uint64)],
        [np.zeros(10, np.uint32)],
        [np.zeros(11, np.float32)],
        [np.zeros(6, np.uint32), np.zeros(6, np.uint32)],
        [],
    ],
)
def test_a_vector_of_another_length_or_ring(pieces):
    play = played("mask")
    sealed = play.server.sealed_for()["a"]
    with refused("length"):
        play.sites["a"].mask(pieces, sealed)
    with refused("out-of-order"):  # masks that were begun are never drawn a second time
        play.sites["a"].mask([np.zeros(11, np.uint32)], sealed)


def test_a_server_key_that_is_none_or_that_everybody_knows():
    with refused("malformed"):
        params(SITES, server_key="not hexadecimal")
    play = Play(params(SITES, server_key="00" * 32))
    play.advertise()
    play.share()
    with refused("low-order-key"):
        play.mask()


@pytest.mark.parametrize(
    ("alive", "dropped"),
    [
        (("a", "b", "c", "d"), ("d",)),  # alive and dropped both
        (("a", "b", "c"), ()),  # one is left out
        (("a", "b", "c", "z"), ("d",)),  # a stranger
        (("b", "c", "d"), ("a",)),  # this site is said to have dropped
        (("a", "a", "b", "c"), ("d",)),  # one twice
    ],
)
def test_survivors_that_do_not_add_up(alive, dropped):
    play = played("unmask")
    with refused("survivors"):
        play.sites["a"].unmask(UnmaskRequest(alive, dropped, {}))


def test_a_second_unmasking():
    play = played("done")
    with refused("out-of-order"):
        play.sites["a"].unmask(UnmaskRequest(SITES[:3], ("d",), {}))
    play.server.open()
    with refused("out-of-order"):
        play.server.open()


def test_fewer_survivors_than_the_threshold():
    play = played("unmask")
    with refused("too-few-sites"):
        play.sites["a"].unmask(UnmaskRequest(("a", "b"), ("c", "d"), {}))


def test_a_server_that_tells_two_stories_gets_too_few_shares_of_either():
    # It wants both secrets of d: some sites are told that d lives, the others that it dropped.
    play = Play(params(("a", "b", "c", "d", "e", "f")))
    for stage in (play.advertise, play.share, play.mask):
        stage()
    lives, gone = UnmaskRequest(tuple("abcdef"), (), {}), UnmaskRequest(tuple("abcef"), ("d",), {})
    told = {site: play.sites[site].unmask(lives if site in "ab" else gone)[0]["d"] for site in "abcef"}
    points = {site: point for point, site in enumerate(sorted("abcdef"), 1)}
    for half in ("ab", "cef"):
        with refused("too-few-shares"):
            opened({points[site]: told[site] for site in half}, 4, b"")


def test_signed_survivors_find_a_server_that_tells_two_stories():
    play = played("vote", signed=True)
    play.sites["a"].vote(SITES, ())
    with refused("out-of-order"):
        play.sites["a"].vote(SITES[:3], ("d",))  # one vote only
    with refused("votes"):
        play.sites["a"].unmask(UnmaskRequest(SITES[:3], ("d",), {}))


def test_votes_that_are_forged_few_or_of_the_dropped():
    play = played("unmask", signed=True)
    good = play.server.request()
    for votes, name in (
        ({**good.votes, "b": bytes(64)}, "wrong-signature"),
        (dict(list(good.votes.items())[:2]), "too-few-sites"),
        ({**good.votes, "z": bytes(64)}, "votes"),
        ({**good.votes, "b": b"short"}, "malformed"),
    ):
        with refused(name):
            play.sites["a"].unmask(UnmaskRequest(good.alive, good.dropped, votes))


def test_a_masked_vector_that_is_replayed_forged_or_sent_twice_is_left_out():
    play, other = played("mask"), played("mask", round=2)
    sealed = play.server.sealed_for()
    other.mask()
    vector, tag = play.sites["a"].mask([play.vectors["a"].copy()], sealed["a"])
    changed = vector.copy()
    changed[3] ^= 1
    for wrong in ((other.masked["a"], tag), (changed, tag), (vector, b""), (vector, bytes(16))):
        play.server.take_masked("a", *wrong)
        assert play.server.refused == {"a": "wrong-tag"}
        play.server.refused.clear()
    play.server.take_masked("b", vector, tag)  # under another's name
    assert play.server.refused == {"b": "wrong-tag"}
    play.server.refused.clear()
    play.server.take_masked("a", vector, tag)
    play.server.take_masked("a", vector, tag)
    assert play.server.refused == {"a": "out-of-order"}
    play.server.take_masked("b", vector[:-1], tag)
    assert play.server.refused["b"] == "length"


def test_another_site_cannot_tag_in_its_name():
    play = played("mask")
    sealed = play.server.sealed_for()
    vector, _ = play.sites["a"].mask([play.vectors["a"].copy()], sealed["a"])
    bound = play.sites["b"]._masks(sealed["b"])[0]
    forged = Tag(tag_key(play.sites["b"]._secrets["share"], bytes.fromhex(play.terms.server_key), bound))
    forged.see(vector)
    play.server.take_masked("a", vector, forged.give())
    assert play.server.refused == {"a": "wrong-tag"}


def test_a_corrupted_share_names_the_culprit_and_the_sum_still_opens():
    names = tuple("abcdefgh")
    play = Play(params(names))
    for stage in (play.advertise, play.share, play.mask):
        stage()
    content = play.sites["c"]._held["a"]
    play.sites["c"]._held["a"] = bytes([content[0] ^ 1]) + content[1:]
    play.unmask()
    total, alive = play.server.open()
    assert (total == play.expected(alive)).all()
    assert play.server.refused == {"c": "corrupted-share"}


@pytest.mark.parametrize("liars", [1, 3])
def test_wrong_shares_at_the_first_of_many_points_are_found(liars):
    found = dict(enumerate(shares(b"s" * 32, 34, 50, b"x"), 1))
    for point in range(1, liars + 1):
        found[point] = bytes([0, 1]) + found[point][2:]
    assert opened(found, 34, b"x") == (b"s" * 32, list(range(1, liars + 1)))


def test_a_site_that_deals_shares_that_do_not_fit_is_named():
    play = played("mask")
    play.mask()
    for site in "abc":  # what d gave them does not come back by opening theirs
        play.sites[site]._held["d"] = bytes(132)
    play.unmask()
    with refused("corrupted-share"):
        play.server.open()
    assert play.server.refused["d"] == "corrupted-share"


def test_a_vector_that_comes_after_the_request_is_turned_away_and_the_sum_stands():
    play = Play(params(tuple("abcdefgh")), lost={"h": "mask"})
    play.advertise()
    play.share()
    sealed = play.server.sealed_for()
    play.mask()
    play.unmask()
    play.server.take_masked("h", *play.sites["h"].mask([play.vectors["h"].copy()], sealed["h"]))
    assert play.server.refused == {"h": "out-of-order"}
    total, alive = play.server.open()
    assert "h" not in alive
    assert (total == play.expected(alive)).all()


@pytest.mark.parametrize("share", [b"", bytes(65), bytes(10_000)])
def test_opened_shares_of_another_length_are_not_taken(share):
    play = played("unmask")
    request = play.server.request()
    for site in SITES:
        given, signature = play.sites[site].unmask(request)
        if site == "b":
            given = {**given, "a": share}
        play.server.take_unmasked(site, given, signature)
    assert play.server.refused == {"b": "malformed"}
    play.server.open()


def test_too_many_corrupted_shares_open_nothing():
    found = dict(enumerate(shares(b"s" * 32, 3, 4, b"x"), 1))
    for point in (1, 2):
        found[point] = bytes(66)
    with refused("corrupted-share"):
        opened(found, 3, b"x")


def test_shares_of_another_context_are_not_taken():
    found = dict(enumerate(shares(b"s" * 32, 3, 3, b"x"), 1))
    with refused("corrupted-share"):
        opened(found, 3, b"y")


def test_a_dropped_sites_key_must_be_the_one_it_advertised():
    play = Play(params(SITES), lost={"d": "mask"})
    play.advertise()
    play.sites["d"]._secrets["mask"] = fresh_secret()  # it deals shares of another key
    for stage in (play.share, play.mask, play.unmask):
        stage()
    with refused("swapped-key"):
        play.server.open()


def test_one_answer_too_few_opens_nothing():
    play = Play(params(SITES), lost={"a": "unmask", "b": "unmask"})
    with refused("too-few-shares"):
        play.run()


@pytest.mark.parametrize("kind", [Advert, UnmaskRequest])
@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"\x00\x00\x00\x09abc", join([b"a"]), join([b"\xff", b"", b"", b""])]
)
def test_bytes_that_are_no_message(kind, content):
    with refused("malformed"):
        kind.from_bytes(content)


@pytest.mark.parametrize("content", [join([b"a"]), join([b"b", b"", b"a", b""]), join([b"a", b"", b"a", b""])])
def test_bytes_by_site_that_are_none(content):
    with refused("malformed"):
        unpack_bytes(content)


@pytest.mark.parametrize("sizes", [(31, 32, 64), (32, 33, 64), (32, 32, 0)])
def test_an_advert_whose_keys_have_another_length(sizes):
    with refused("malformed"):
        Advert.from_bytes(join([b"a", *(bytes(size) for size in sizes)]))


def test_messages_survive_their_bytes():
    play = played("unmask", signed=True)
    advert = play.server.adverts()["a"]
    assert Advert.from_bytes(advert.to_bytes()) == advert
    request = play.server.request()
    assert UnmaskRequest.from_bytes(request.to_bytes()) == request
    assert unpack_bytes(pack_bytes({"b": b"1", "a": b""})) == {"a": b"", "b": b"1"}
    assert split(join([b"", b"x" * 300])) == [b"", b"x" * 300]


def test_a_sealed_state_opens_for_its_site_alone():
    play = played("mask")
    state = play.sites["a"].sealed()
    with refused("sealed-wrong"):
        SiteSession.restored(state, play.identities["b"], play.roster, SitePolicy())
    with refused("sealed-wrong"):
        SiteSession.restored(state[:-1], play.identities["a"], play.roster, SitePolicy())


def test_secrets_are_not_shown():
    play = played("mask")
    for secret in play.sites["a"]._secrets.values():
        assert secret.hex() not in repr(play.sites["a"])
        assert repr(secret) not in repr(play.sites["a"])


def test_identities_and_rosters_on_disk(tmp_path):
    identity = Identity.fresh("a")
    identity.write(tmp_path / "a.key")
    assert (tmp_path / "a.key").stat().st_mode & 0o077 == 0
    assert Identity.read(tmp_path / "a.key").public == identity.public
    with pytest.raises(ConfigError):
        identity.write(tmp_path / "a.key")
    with pytest.raises(ConfigError):
        Identity.read(tmp_path / "none")
    Roster({"a": identity.public}).write(tmp_path / "roster.json")
    assert Roster.read(tmp_path / "roster.json").keys == {"a": identity.public}
    (tmp_path / "roster.json").write_text('{"a": "00"}')
    with pytest.raises(ConfigError):
        Roster.read(tmp_path / "roster.json")


def test_a_server_session_takes_no_advert_of_another_site():
    play = Play(params(SITES))
    server = ServerSession(play.terms, play.roster, SERVER)
    server.take_advert("b", play.sites["a"].advertise())
    assert server.refused == {"b": "unknown-site"}


def test_params_are_frozen():
    with pytest.raises(AttributeError):
        params(SITES).round = 2
    assert isinstance(params(SITES), Params)
