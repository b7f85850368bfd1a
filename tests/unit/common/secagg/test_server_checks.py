"""What the server checks of what sites send: each check by itself, with the sum of the others opened all the same."""

from dataclasses import replace

import pytest

from common.secagg.keys import pair_key, seal
from common.secagg.params import SitePolicy
from common.secagg.shamir import SHARE_BYTES
from common.secagg.site import SiteSession
from common.secagg.wire import digest
from tests.secure_sums import Play, params, refused

SEVEN = tuple("abcdefg")
"""Of seven, one may be turned away at every stage."""


def played(*stages, **changes):
    play = Play(params(SEVEN, **changes))
    for stage in stages:
        getattr(play, stage)()
    return play


def opens_without(play, site):
    total, alive = play.server.open()
    assert set(alive) == set(SEVEN) - {site}
    assert (total == play.expected(alive)).all()


def test_an_advert_that_its_site_did_not_sign_is_turned_away():
    play = played()
    for site in SEVEN:
        advert = play.sites[site].advertise()
        play.server.take_advert(site, replace(advert, signature=bytes(64)) if site == "b" else advert)
    assert play.server.refused == {"b": "wrong-signature"}
    assert set(play.server.adverts()) == set(SEVEN) - {"b"}


def test_an_advert_twice_or_of_a_stranger_is_turned_away():
    play = played("advertise")
    play.server.take_advert("a", play.server.adverts()["a"])
    assert play.server.refused == {"a": "unknown-site"}
    play.server.refused.clear()
    play.server.take_advert("z", replace(play.server.adverts()["a"], site="z"))
    assert play.server.refused == {"z": "unknown-site"}


def test_a_vote_that_its_site_did_not_sign_does_not_count():
    play = played("advertise", "share", "mask", signed=True)
    who = play.server.who()
    votes = {site: play.sites[site].vote(*who) for site in SEVEN}
    play.server.take_vote("a", votes["b"])
    assert play.server.refused == {"a": "wrong-signature"}
    for site in "bcdefg":
        play.server.take_vote(site, votes[site])
    assert set(play.server.request().votes) == set("bcdefg")


def test_opened_shares_that_their_site_did_not_sign_are_not_taken():
    play = played("advertise", "share", "mask")
    request = play.server.request()
    for site in SEVEN:
        given, signature = play.sites[site].unmask(request)
        play.server.take_unmasked(site, given, bytes(64) if site == "c" else signature)
    assert play.server.refused == {"c": "wrong-signature"}
    assert set(play.server.open()[1]) == set(SEVEN)  # its vector is in the sum; its shares were not needed


@pytest.mark.parametrize("wrong", ["twice", "too few", "of nobody"])
def test_opened_shares_twice_or_not_of_all_are_not_taken(wrong):
    play = played("advertise", "share", "mask")
    request = play.server.request()
    given, signature = play.sites["a"].unmask(request)
    if wrong == "twice":
        play.server.take_unmasked("a", given, signature)
    else:
        changed = {**given, "z": bytes(SHARE_BYTES)} if wrong == "of nobody" else dict(list(given.items())[:-1])
        content = digest([field for each in sorted(changed) for field in (each.encode(), changed[each])])
        given, signature = changed, play.identities["a"].sign(play.server._view, "shares", content)
    play.server.take_unmasked("a", given, signature)
    assert play.server.refused == {"a": "out-of-order"}


def test_shares_not_for_everybody_are_not_taken():
    play = played("advertise")
    adverts = play.server.adverts()
    for site in SEVEN:
        sealed = play.sites[site].share(adverts)
        play.server.take_shares(site, dict(list(sealed.items())[1:]) if site == "d" else sealed)
    assert play.server.refused == {"d": "malformed"}
    play.mask()
    play.unmask()
    opens_without(play, "d")


@pytest.mark.parametrize(
    ("lost", "step"),
    [("share", "sealed_for"), ("mask", "who"), ("mask", "request")],
    ids=["shares", "vectors", "request"],
)
def test_the_server_goes_no_further_with_too_few(lost, step):
    play = Play(params(SEVEN), dict.fromkeys("abc", lost))
    play.advertise()
    play.share()
    if lost == "mask":
        play.mask()
    with refused("too-few-sites"):
        getattr(play.server, step)()


def test_a_sum_with_too_few_opened_shares_is_not_touched():
    play = Play(params(SEVEN), dict.fromkeys("abc", "unmask"))
    play.advertise()
    play.share()
    play.mask()
    play.unmask()
    before = play.server._total.copy()
    with refused("too-few-shares"):
        play.server.open()
    assert (play.server._total == before).all()
    assert not play.server._opened  # those who are late may still answer


def test_a_site_refuses_a_sealed_share_of_another_length():
    play = played("advertise", "share")
    sealed = play.server.sealed_for()["a"]
    held = play.sites["b"]
    key = pair_key(held._secrets["share"], play.server.adverts()["a"].share_key, "share", held._view)
    short = seal(key, bytes(SHARE_BYTES), held._view, b"b", b"a")
    with refused("malformed"):
        play.sites["a"].mask([play.vectors["a"]], {**sealed, "b": short})


def test_a_site_signs_no_survivors_that_do_not_add_up():
    play = played("advertise", "share", "mask", signed=True)
    alive, _ = play.server.who()
    for wrong in ((alive, ("b",)), (alive[1:], ()), (alive[1:], (alive[0],))):
        with refused("survivors"):
            play.sites["a"].vote(*wrong)


@pytest.mark.parametrize("stranger", ["misnamed", "outside"])
def test_a_site_takes_no_advert_of_somebody_else(stranger):
    play = played("advertise")
    adverts = play.server.adverts()
    if stranger == "misnamed":
        adverts["b"] = replace(adverts["c"])
    else:
        identity = play.identities["b"]
        adverts["z"] = SiteSession(identity, play.roster, SitePolicy(), play.terms).advertise()
    with refused("unknown-site"):
        play.sites["a"].share(adverts)
