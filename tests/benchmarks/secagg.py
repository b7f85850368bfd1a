"""What secure aggregation costs: `python tests/benchmarks/secagg.py [--values N] [--sites N] [--repeats N]`.

Ours beside Flower's SecAgg+ (the functions of its client mod) on the same vector in the same run, interleaved; seconds
are the process's own CPU time, medians over the repeats. Peak memory is counted by tracemalloc, which NumPy reports to.
With `--keep` freed memory stays with the process, as in a client of ours; it helps Flower's step more than ours.
"""

import argparse
import importlib
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from flwr.common import ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt, generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_addition
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen, share_keys_plaintext_concat
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)
from machine import describe

from common.allocator import keep_freed_memory
from common.keystream import CHUNK, Keystream, fresh_key, new_scratch
from common.messages import to_wire
from common.randomness import SecureRandom
from common.secagg.layout import Layout, Segment
from common.secagg.masks import MASK_KEY_BYTES, add_mask, add_masks
from common.secagg.parcels import UnmaskRequest
from common.secagg.server import ServerSession
from tests.secure_sums import SERVER, Play, params

# By name: the package puts a function of that name over its module.
theirs = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")


def main() -> None:
    """Print one table, and what was asked of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, default=10_000_000, help="entries of the vector")
    parser.add_argument("--sites", type=int, default=10, help="sites of the step that is compared")
    parser.add_argument("--repeats", type=int, default=5, help="repeats whose median counts")
    parser.add_argument("--keep", action="store_true", help="keep freed memory, as a client does")
    options = parser.parse_args()
    if options.keep:
        keep_freed_memory()
    print(f"{describe()}\n{options.values:,} values, medians of {options.repeats}\n")
    masks(options.values, options.repeats)
    steps(options.values, options.sites, options.repeats)
    server(options.values, options.sites, options.repeats)
    whole(options.values, 6, options.repeats)


def masks(values: int, repeats: int) -> None:
    """Compare the expansion of one mask with the keystream alone, and with Flower's."""
    vector = np.zeros(values, np.uint32)
    key = fresh_key()
    rows: dict[str, Callable[[], object]] = {
        "AES-128-CTR keystream alone": lambda: plain_counter_mode(key[:MASK_KEY_BYTES], vector.nbytes),
        "our own keystream alone (through GCM)": lambda: own_keystream(key[:MASK_KEY_BYTES], vector.nbytes),
        "one mask of ℤ₂³², expanded and added": lambda: add_mask(vector, key, 1),
        "ten masks at once, each": lambda: add_masks(vector, [(key, 1)] * 10),
        "Flower's mask, expanded and added": lambda: add_theirs(vector),
    }
    took = interleaved(rows, repeats)
    took["ten masks at once, each"] /= 10
    alone = took["AES-128-CTR keystream alone"]
    print("| one mask | ms | GB/s | share of the keystream's rate |\n| --- | --- | --- | --- |")
    for name, seconds in took.items():
        print(f"| {name} | {1e3 * seconds:.1f} | {vector.nbytes / seconds / 1e9:.2f} | {alone / seconds:.0%} |")
    print(f"\nbar: 70 %; found {alone / took['ten masks at once, each']:.0%} as a site of eleven expands them")
    own = took["our own keystream alone (through GCM)"]
    print(f"of our own keystream, which is faster: {own / took['ten masks at once, each']:.0%}\n")


def steps(values: int, sites: int, repeats: int) -> None:
    """Compare a site's whole step: lay out, round, mask for itself and for each other site, serialise."""
    update = np.random.default_rng(0).normal(size=values).astype(np.float32) * np.float32(1e-3)
    names = [f"s{number:02}" for number in range(sites)]
    state, configs = flower_state(sites)
    parameters = ndarrays_to_parameters([update])
    sent: dict[str, int] = {}

    def ours(bits: int) -> Callable[[], object]:
        layout = Layout((Segment("update", values, 10.0),), bits, sites)

        def step() -> None:
            play.sites[names[0]].stage = "mask"
            vector, _ = play.sites[names[0]].mask(layout.pieces({"update": update}, SecureRandom()), sealed)
            sent[f"ℤ₂{bits}"] = len(to_wire(vector).data)

        play = Play(params(names, ring_bits=bits, length=values))
        play.vectors = {}
        play.advertise()
        play.share()
        sealed = play.server.sealed_for()[names[0]]
        return step

    rows: dict[str, Callable[[], object]] = {
        "ours, ℤ₂³²": ours(32),
        "ours, ℤ₂⁶⁴": ours(64),
        "Flower's SecAgg+": lambda: theirs._collect_masked_vectors(state, configs, 500, parameters),
    }
    turns = taken_in_turns(rows, repeats)
    took = {name: statistics.median(each) for name, each in turns.items()}
    slow = took["Flower's SecAgg+"]
    ratios = [theirs_ / ours_ for theirs_, ours_ in zip(turns["Flower's SecAgg+"], turns["ours, ℤ₂³²"], strict=True)]
    print(f"| whole step of one of {sites} sites | CPU s | Flower's ÷ this |\n| --- | --- | --- |")
    for name, seconds in took.items():
        print(f"| {name} | {seconds:.3f} | {slow / seconds:.1f} |")
    clear = 4 * values
    print(
        f"\nbar: 8 at ℤ₂³²; found {slow / took['ours, ℤ₂³²']:.1f}, turn by turn {min(ratios):.1f} to {max(ratios):.1f}"
    )
    extra = 72 + 64 + (sites - 1) * 160 + 66 * sites
    print(f"bytes a site sends at ℤ₂³²: {(sent['ℤ₂32'] + extra) / clear:.4f} × clear float32 (bar 1.05)")
    step = ours(32)
    tracemalloc.start()
    step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"peak memory of the step at ℤ₂³²: {peak / clear:.3f} copies of the vector (bar 2)\n")


def server(values: int, sites: int, repeats: int) -> None:
    """Compare what the server does in a secure sum, checks and all, with adding the clear vectors."""
    names = [f"s{number:02}" for number in range(sites)]
    clear = np.zeros(values, np.float32)
    rows: dict[str, Callable[[], object]] = {"clear sum": lambda: sum(clear for _ in names)}
    for lost in (0, 1):
        rows[f"secure sum, {lost} lost while masking"] = server_step(names, lost, values)
    took = interleaved(rows, max(3, repeats // 2))
    print(f"| server's step of {sites} sites | CPU s |\n| --- | --- |")
    for name, seconds in took.items():
        print(f"| {name} | {seconds:.3f} |")
    print()


def server_step(names: list[str], lost: int, values: int) -> Callable[[], object]:
    """Play the sites once, keep all that they sent, and give what the server then does with it."""
    play = Play(params(names, length=values), dict.fromkeys(names[:lost], "mask"))
    play.vectors = {name: np.zeros(values, np.uint32) for name in names}
    adverts = {name: play.sites[name].advertise() for name in names}
    shares = {name: play.sites[name].share(adverts) for name in names}
    alive, sent, opened = names[lost:], {}, {}
    for name in alive:
        vector = play.vectors[name]
        sent[name] = play.sites[name].mask([vector], {other: shares[other][name] for other in names if other != name})
    request = UnmaskRequest(tuple(alive), tuple(names[:lost]), {})
    for name in alive:
        opened[name] = play.sites[name].unmask(request)

    def step() -> None:
        session = ServerSession(play.terms, play.roster, SERVER)
        for name in names:
            session.take_advert(name, adverts[name])
        for name in names:
            session.take_shares(name, shares[name])
        for name in alive:
            session.take_masked(name, *sent[name])
        session.request()
        for name in alive:
            session.take_unmasked(name, *opened[name])
        total, _ = session.open()
        assert not session.refused
        assert not total.any()

    return step


def whole(values: int, sites: int, repeats: int) -> None:
    """Compare a whole sum, all parties, with adding the clear vectors; and with one site lost."""
    names = [f"s{number:02}" for number in range(sites)]

    def summed(lost: dict[str, str]) -> Callable[[], object]:
        def run() -> None:
            play.server, play.masked = type(play.server)(play.terms, play.roster, SERVER), {}
            play.sites = {site: play.session(site) for site in names}
            play.lost = lost
            play.run()

        play = Play(params(names, length=values))
        return run

    clear = {name: np.zeros(values, np.float32) for name in names}
    rows: dict[str, Callable[[], object]] = {
        "clear sum": lambda: sum(clear.values()),
        "secure sum": summed({}),
        "secure sum, one site lost while masking": summed({names[0]: "mask"}),
    }
    took = interleaved(rows, max(3, repeats // 2))
    print(f"| whole sum of {sites} sites, all parties | CPU s | a party |\n| --- | --- | --- |")
    for name, seconds in took.items():
        print(f"| {name} | {seconds:.3f} | {seconds / (sites + 1):.3f} |")


def plain_counter_mode(key: bytes, count: int) -> None:
    """Make so many bytes of keystream in OpenSSL's plain counter mode and throw them away."""
    cipher, zeros, scratch = (
        Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor(),
        bytes(CHUNK),
        new_scratch(),
    )
    for start in range(0, count, CHUNK):
        cipher.update_into(memoryview(zeros)[: min(CHUNK, count - start)], scratch)


def own_keystream(key: bytes, count: int) -> None:
    """Make so many bytes of the keystream that masks are drawn from and throw them away."""
    for _ in Keystream(key).chunks(count):
        pass


def add_theirs(vector: np.ndarray) -> None:
    """Expand and add a mask as Flower does."""
    mask = pseudo_rand_gen(b"k" * 32, 1 << 32, [vector.shape])
    parameters_addition([vector.astype(np.int64)], mask)


def flower_state(sites: int) -> tuple[object, dict[str, object]]:
    """Make a client's state after sharing keys, as Flower's stages 0 and 1 leave it."""
    keys = [generate_key_pairs() for _ in range(sites)]
    state = theirs.SecAggPlusState()
    state.nid, state.sample_num, state.share_num, state.threshold = 0, sites, sites, 2 * sites // 3
    state.clipping_range, state.target_range, state.mod_range, state.max_weight = 8.0, 1 << 22, 1 << 32, 1000.0
    state.sk1, state.rd_seed = private_key_to_bytes(keys[0][0]), b"r" * 32
    state.rd_seed_share_dict, state.sk1_share_dict, state.ss2_dict, state.public_keys_dict = {}, {}, {}, {}
    ciphertexts, sources = [], []
    for number in range(1, sites):
        shared = generate_shared_key(
            bytes_to_private_key(private_key_to_bytes(keys[0][0])),
            bytes_to_public_key(public_key_to_bytes(keys[number][1])),
        )
        state.ss2_dict[number] = shared
        state.public_keys_dict[number] = (public_key_to_bytes(keys[number][1]),) * 2
        ciphertexts.append(encrypt(shared, share_keys_plaintext_concat(number, 0, b"share" * 10, b"share" * 60)))
        sources.append(number)
    return state, {Key.CIPHERTEXT_LIST: ciphertexts, Key.SOURCE_LIST: sources}


def interleaved(rows: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Give each row's median CPU seconds."""
    return {name: statistics.median(each) for name, each in taken_in_turns(rows, repeats).items()}


def taken_in_turns(rows: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Give each row's CPU seconds, turn by turn; rows take turns, after one turn that does not count."""
    took: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(repeats + 1):
        for name, call in rows.items():
            began = time.process_time()
            call()
            if turn:
                took[name].append(time.process_time() - began)
    return took


if __name__ == "__main__":
    main()
