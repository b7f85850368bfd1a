"""A server that tells sites different things, with as many colluders as are guarded against, opens no smaller sum.

The lies are planned by maximum flow, which is exact, and played against the real sites; with the rule that a lie breaks
taken out, the same lie strips a site of all its masks, so these tests can fail.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

import common.secagg.params
import common.secagg.site
from common.secagg.consistency import fewest_alive
from common.secagg.keys import derived, pair_key
from common.secagg.masks import add_mask
from common.secagg.params import Params, threshold
from common.secagg.parcels import UnmaskRequest
from common.secagg.shamir import SHARE_BYTES, opened
from common.secagg.site import mask_context, secret_context, view_of
from tests.secure_sums import Play, params, refused


@dataclass
class Lie:
    """Who is stripped, whom they are shown, and whom each honest site is told has dropped."""

    stripped: tuple
    shown: tuple
    told: dict

    def to(self, site):
        return self.told.get(site, ())


def lies(n, c, t, alive, few):
    """Plan the isolation of the first `few` of n sites, the last c of which collude; None where no lie reaches it."""
    sites = [f"s{number:02}" for number in range(n)]
    honest, colluding = sites[: n - c], sites[n - c :]
    for helping in range(c + 1):
        for others in range(n - c - few + 1):
            shown = (*honest[: few + others], *colluding[:helping])
            keys = honest[few : few + others]
            if len(shown) < alive:
                continue
            told = _told(honest, keys, {site: len(shown) - alive for site in honest[:few]}, n - alive, t - c)
            if told is not None:
                return Lie(tuple(honest[:few]), shown, told)
    return None


def _told(honest, keys, fewer, most, needed):
    """Give who must be told that whom of `keys` dropped, `needed` times each; nobody believes it of himself."""
    size = len(honest) + len(keys) + 2
    source, sink = size - 2, size - 1
    graph = np.zeros((size, size), np.int32)
    for place, site in enumerate(honest):
        graph[source, place] = max(0, fewer.get(site, most))
        for number, key in enumerate(keys):
            graph[place, len(honest) + number] = site != key
    graph[len(honest) : len(honest) + len(keys), sink] = max(0, needed)
    found = maximum_flow(csr_array(graph), source, sink)
    if found.flow_value < max(0, needed) * len(keys):
        return None
    flow = found.flow.toarray()
    return {
        site: tuple(key for number, key in enumerate(keys) if flow[place, len(honest) + number] > 0)
        for place, site in enumerate(honest)
    }


def play_lie(play, lie, colluders):
    """Play a lie to the end and give what is left of the stripped sites' vectors when all masks are off."""
    sites, everyone = play.terms.sites, set(play.terms.sites)
    play.advertise()
    adverts = play.server.adverts()
    view = view_of(play.terms.context, adverts)
    sealed = {site: play.sites[site].share(adverts) for site in sites}
    shown = {site: set(lie.shown) if site in lie.stripped else everyone for site in sites}
    vectors = {site: play.vectors[site].copy() for site in sites}
    for site in sites:
        play.sites[site].mask([vectors[site]], {other: sealed[other][site] for other in shown[site] - {site}})
    known = {site: (dict(play.sites[site]._held), dict(play.sites[site]._secrets)) for site in colluders}
    given = {}
    for site in sorted(everyone - set(colluders)):
        dropped = lie.to(site)
        request = UnmaskRequest(tuple(sorted(shown[site] - set(dropped))), dropped, {})
        given[site] = play.sites[site].unmask(request)[0]

    points = {site: point for point, site in enumerate(sorted(sites), 1)}

    def secret(of, which):
        part = slice(0, SHARE_BYTES) if which == "self" else slice(SHARE_BYTES, None)
        found = {points[site]: known[site][0][of][part] for site in colluders}
        found |= {
            points[site]: given[site][of]
            for site in given
            if of in given[site] and (of in lie.to(site)) == (which == "mask")
        }
        return opened(found, play.terms.threshold, secret_context(view, of, which))[0]

    bound = mask_context(view, {site: adverts[site] for site in lie.shown})
    left = np.zeros_like(vectors[sites[0]])
    for site in lie.stripped:
        vector = vectors[site]
        add_mask(vector, derived(secret(site, "self"), "self", bound), -1)
        for other in set(lie.shown) - set(lie.stripped):
            key = known[other][1]["mask"] if other in known else secret(other, "mask")
            add_mask(vector, pair_key(key, adverts[site].mask_key, "pair", bound), -1 if site < other else 1)
        left += vector
    return left


def naive(sites, colluders, threshold, fewest, signed):
    """2t > n + c alone."""
    return max(threshold, fewest)


@pytest.mark.parametrize(("n", "c"), [(6, 1), (7, 2), (9, 1), (10, 3)])
def test_one_site_is_stripped_where_only_the_threshold_must_live_and_not_otherwise(n, c, monkeypatch):
    sites = [f"s{number:02}" for number in range(n)]
    t = threshold(n, c)
    lie = lies(n, c, t, t, 1)
    terms = params(sites, colluders=c)
    with refused("too-few-sites"):
        play_lie(Play(terms), lie, sites[n - c :])
    monkeypatch.setattr(common.secagg.params, "fewest_alive", naive)
    play = Play(terms)
    assert (play_lie(play, lie, sites[n - c :]) == play.vectors[sites[0]]).all()


@pytest.mark.parametrize(("n", "c"), [(n, c) for n in range(3, 13) for c in range(n - 1) if threshold(n, c) <= n])
def test_no_lie_opens_a_sum_of_fewer_honest_sites_than_is_promised(n, c):
    t = threshold(n, c)
    for fewest in {t, min(n, t + 2)}:
        alive = fewest_alive(n, c, t, fewest, signed=False)
        promised = max(t, fewest) - c
        assert promised <= alive - c
        assert all(lies(n, c, t, alive, few) is None for few in range(1, promised))
        if alive > max(t, fewest):  # and no more is asked than is needed
            assert any(lies(n, c, t, alive - 1, few) for few in range(1, promised))


def test_signed_survivors_need_no_more_than_the_threshold():
    for n, c in ((6, 1), (20, 6), (50, 16)):
        t = threshold(n, c)
        assert fewest_alive(n, c, t, 3, signed=True) == t
        assert t < fewest_alive(n, c, t, 3, signed=False) <= n


@pytest.mark.parametrize(("n", "c"), [(6, 1), (9, 1)])
def test_under_signed_survivors_the_lie_finds_too_few_votes(n, c):
    sites = [f"s{number:02}" for number in range(n)]
    t = threshold(n, c)
    lie = lies(n, c, t, t, 1)
    play = Play(params(sites, colluders=c, signed=True))
    play.advertise()
    adverts = play.server.adverts()
    sealed = {site: play.sites[site].share(adverts) for site in sites}
    votes, requests = {}, {}
    for site in sites:
        shown = set(lie.shown) if site in lie.stripped else set(sites)
        play.sites[site].mask([play.vectors[site].copy()], {other: sealed[other][site] for other in shown - {site}})
        dropped = lie.to(site)
        story = (tuple(sorted(shown - set(dropped))), dropped)
        requests[site] = story
        votes.setdefault(story, {})[site] = play.sites[site].vote(*story)
    # The colluders sign every story that is told.
    view = view_of(play.terms.context, adverts)
    for story, signed in votes.items():
        payload = UnmaskRequest(*story, {}).payload
        signed |= {site: play.identities[site].sign(view, "survivors", payload) for site in sites[n - c :]}
    for site in sites[: n - c]:
        story = requests[site]
        heard = {other: vote for other, vote in votes[story].items() if other in story[0]}
        with refused("too-few-sites"):
            play.sites[site].unmask(UnmaskRequest(*story, heard))


def shown_fewer(n, seen):
    """Let one site see `seen` adverts, the others all; give its masked vector or the refusal on the way to it."""
    sites = [f"s{number:02}" for number in range(n)]
    play = Play(params(sites))
    play.advertise()
    adverts = play.server.adverts()
    first = {site: adverts[site] for site in sites[:seen]}
    sealed = {site: play.sites[site].share(first if site == sites[0] else adverts) for site in sites}
    play.sites[sites[0]].mask([play.vectors[sites[0]]], {other: sealed[other][sites[0]] for other in sites[1:seen]})


def test_a_site_that_is_shown_few_adverts_goes_no_further():
    # With a threshold that followed the adverts seen, three shares opened its self mask, and the others, who saw a
    # cohort of ten, opened the mask keys of the two it was shown: its vector was bare, with nobody colluding.
    with refused("too-few-sites"):
        shown_fewer(10, 3)


def test_sites_that_were_shown_different_adverts_cannot_open_each_others_shares(monkeypatch):
    with refused("sealed-wrong"):
        shown_fewer(10, 9)
    # The view is what keeps them apart: without it the same shares open.
    monkeypatch.setattr(common.secagg.site, "view_of", lambda context, adverts: context)
    shown_fewer(10, 9)


@pytest.mark.parametrize("adverts", [3, 5, 9])
def test_the_threshold_is_the_cohorts_whoever_advertised(adverts):
    sites = [f"s{number:02}" for number in range(10)]
    play = Play(params(sites), lost=dict.fromkeys(sites[adverts:], "advertise"))
    if adverts < play.terms.least:
        with refused("too-few-sites"):
            play.run()
    else:
        play.run()
    assert play.terms.threshold == 7


def test_an_advert_that_was_made_anew_does_not_mix_with_the_first():
    play = Play(params("abcd"))
    play.advertise()
    first = play.server.adverts()
    again = play.session("b")
    second = {**first, "b": again.advertise()}
    assert again.share(second)
    sealed = play.sites["c"].share(first)
    for site in "ad":
        play.sites[site].share(first)
    with refused("sealed-wrong"):
        again.mask([play.vectors["b"]], {"c": sealed["b"], "a": sealed["b"], "d": sealed["b"]})


def test_terms_know_their_threshold_and_least():
    terms = params([f"s{number}" for number in range(6)], colluders=1)
    assert (terms.threshold, terms.least) == (4, 5)
    assert params(terms.sites, colluders=1, signed=True).least == 4
    assert isinstance(terms, Params)
