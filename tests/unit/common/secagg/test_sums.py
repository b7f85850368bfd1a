"""Secure sums are exact whoever drops out, opened for enough sites only, and what travels looks like chance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.errors import SecureAggregationError
from common.secagg.keys import derived, pair_key
from common.secagg.masks import add_mask
from common.secagg.params import threshold
from common.secagg.site import mask_context, view_of
from tests.secure_sums import STAGES, Play, params

NAMES = [f"site{number:02}" for number in range(12)]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_sum_is_exact_or_refused(data):
    count = data.draw(st.integers(3, 9))
    signed = data.draw(st.booleans())
    lost = data.draw(st.dictionaries(st.sampled_from(NAMES[:count]), st.sampled_from(STAGES), max_size=count))
    terms = params(NAMES[:count], ring_bits=data.draw(st.sampled_from([32, 64])), signed=signed)
    play = Play(terms, lost, seal=data.draw(st.booleans()))
    gone = {stage: sum(STAGES.index(when) <= STAGES.index(stage) for when in lost.values()) for stage in STAGES}
    enough = count - gone["vote" if signed else "mask"] >= terms.least and count - gone["unmask"] >= terms.threshold
    if not enough:
        with pytest.raises(SecureAggregationError, check=lambda error: error.refusal.startswith("too-few-")):
            play.run()
    else:
        total, alive = play.run()
        assert set(alive) == {site for site in terms.sites if lost.get(site, "unmask") in ("vote", "unmask")}
        assert (total == play.expected(alive)).all()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("signed", [False, True])
def test_as_many_as_may_drop_out_at_each_stage_and_no_more(stage, signed):
    if stage == "vote" and not signed:
        pytest.skip("only signed sums have this stage")
    n = 10
    terms = params(NAMES[:n], signed=signed)
    # Opening takes t shares; before it, so many must live that no lie about who lives gains anything.
    needed = terms.threshold if stage == "unmask" else terms.least
    for missing, works in ((1, True), (n - needed, True), (n - needed + 1, False)):
        play = Play(terms, dict.fromkeys(NAMES[:missing], stage))
        if works:
            total, alive = play.run()
            assert (total == play.expected(alive)).all()
        else:
            with pytest.raises(SecureAggregationError):
                play.run()


def test_fifty_sites_with_losses_at_two_stages():
    names = [f"s{number}" for number in range(50)]
    lost = dict.fromkeys(names[:8], "mask") | dict.fromkeys(names[8:16], "unmask")
    play = Play(params(names), lost)
    total, alive = play.run()
    assert len(alive) == 42
    assert (total == play.expected(alive)).all()


@pytest.mark.parametrize(
    ("n", "colluders", "t"), [(3, 0, 3), (3, 1, 3), (4, 0, 3), (10, 3, 7), (50, 16, 34), (50, 20, 36)]
)
def test_thresholds(n, colluders, t):
    assert threshold(n, colluders) == t
    assert 2 * t > n + colluders


@pytest.mark.parametrize(("n", "colluders"), [(3, 2), (10, 9), (10, -1)])
def test_too_many_colluders_are_refused(n, colluders):
    with pytest.raises(SecureAggregationError) as found:
        threshold(n, colluders)
    assert found.value.refusal == "colluders"


def test_one_masked_vector_looks_like_chance():
    play = Play(params(NAMES[:4], length=50_000))
    for site in play.vectors:
        play.vectors[site][:] = 7  # the worst case: every entry alike
    play.advertise()
    play.share()
    play.mask()
    for vector in play.masked.values():
        counts = np.bincount(vector.view(np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-5
    pair = play.masked[NAMES[0]] - play.masked[NAMES[1]]  # nor do two together
    assert stats.chisquare(np.bincount(pair.view(np.uint8), minlength=256)).pvalue > 1e-5


def test_masks_of_two_rounds_do_not_cancel():
    differences = []
    for round_ in (1, 2):
        play = Play(params(NAMES[:3], round=round_, length=20_000))
        play.run()
        differences.append(play.masked[NAMES[0]])
    counts = np.bincount((differences[0] - differences[1]).view(np.uint8), minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-5


def test_colluders_and_the_server_learn_the_honest_sum_and_no_more():
    # Everything that the server and three colluders know of a and b explains another pair of inputs with the same sum
    # just as well: the mask that only a and b know moves between them.
    play = Play(params(NAMES[:5]))
    play.advertise()
    play.share()
    a, b, *others = NAMES[:5]
    secrets = {site: dict(play.sites[site]._secrets) for site in play.sites}
    adverts = play.server.adverts()
    play.mask()
    bound = mask_context(view_of(play.terms.context, adverts), adverts)

    def unmasked(site, known_pairs):
        vector = play.masked[site].copy()
        add_mask(vector, derived(secrets[site]["self"], "self", bound), -1)  # the server opens self masks of the living
        for other in known_pairs:
            key = pair_key(secrets[other]["mask"], adverts[site].mask_key, "pair", bound)
            add_mask(vector, key, -1 if site < other else 1)
        return vector

    left = {site: unmasked(site, others) for site in (a, b)}
    assert (left[a] + left[b] == play.vectors[a] + play.vectors[b]).all()  # the sum is all that is certain
    shift = np.random.default_rng(1).integers(0, 2**32, play.terms.length, dtype=np.uint32)
    pair = left[a] - play.vectors[a]
    moved = pair - shift  # another mask of the pair, as likely as the true one, …
    assert (left[a] - moved == play.vectors[a] + shift).all()  # … gives a another input,
    assert (left[b] + moved == play.vectors[b] - shift).all()  # and b the one that keeps the sum
    for site in (a, b):
        assert (left[site] != play.vectors[site]).any()


@pytest.mark.parametrize("seal", [False, True])
def test_secrets_are_gone_after_unmasking(seal):
    play = Play(params(NAMES[:3]), seal=seal)
    play.run()
    for session in play.sites.values():
        assert session.stage == "done"
        assert not session._secrets
        assert not session._held
