"""Opening a site: a simulated one, a merged one, a hospital with a TOML, and what each refuses."""

import numpy as np
import pytest
import torch

from client.site import (
    MEMBERS,
    PARTITION,
    PARTITIONS,
    SITE_FILE,
    STORE,
    folder_name,
    merge,
    open_site,
    read_site_config,
)
from common.data.archive import write_archive
from common.data.base import Dataset
from common.data.federation import open_federation
from common.errors import ConfigError, DataError, SiteCountError, UnknownNameError
from tests.federations import SITES, small_config


def test_a_member_is_the_site_of_the_federation():
    config = small_config()
    site = open_site(config, {MEMBERS: "harbour"})
    expected = open_federation(config.data).site("harbour")
    assert (site.name, site.data.role, site.store) == ("harbour", "source", None)
    assert np.array_equal(site.data.train.images, expected.train.images)
    assert site.device == torch.device("cpu")


def test_a_partition_is_a_number():
    config = small_config()
    names = [site.name for site in open_federation(config.data).sites]
    assert [open_site(config, {PARTITION: index}).name for index in range(len(names))] == names


@pytest.mark.parametrize("index", [-1, 6, 99])
def test_a_partition_that_is_not_there_is_refused(index):
    with pytest.raises(ConfigError, match=f"no site number {index}"):
        open_site(small_config(), {PARTITION: index})


@pytest.mark.parametrize("nodes", [2, 7])
def test_fewer_or_more_nodes_than_sites_are_refused(nodes):
    config = small_config()
    names = [site.name for site in open_federation(config.data).sites]
    with pytest.raises(SiteCountError, match=rf"there are {nodes} nodes; .* {len(names)} sites.*num-supernodes="):
        open_site(config, {PARTITION: 0, PARTITIONS: nodes})
    assert open_site(config, {PARTITION: 0, PARTITIONS: len(names)}).name == names[0]


def test_a_node_that_names_nothing_is_refused():
    with pytest.raises(ConfigError, match="names no site"):
        open_site(small_config(), {})


def test_an_unknown_member_is_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'harbour'"):
        open_site(small_config(), {MEMBERS: "harbor"})


def test_a_held_out_site_stays_held_out():
    config = small_config(data__held_out="harbour")
    assert open_site(config, {MEMBERS: "harbour"}).data.role == "held-out"
    assert open_site(config, {MEMBERS: "north"}).data.role == "source"


def test_a_held_out_site_cannot_hide_in_a_group():
    with pytest.raises(ConfigError, match="harbour is held out and stands in a group"):
        open_site(small_config(data__held_out="harbour"), {MEMBERS: "north\nharbour"})


def test_merging_keeps_every_image_and_tells_patients_of_two_sites_apart():
    federation = open_federation(small_config().data)
    members = [federation.site(name) for name in SITES]
    whole = merge(members)
    assert whole.name == "north + harbour + lakeside"
    assert merge(members[:1]) is members[0]
    for split in ("train", "val", "test"):
        parts = [getattr(member, split) for member in members]
        merged = getattr(whole, split)
        assert np.array_equal(merged.images, np.concatenate([part.images for part in parts]))
        assert np.array_equal(merged.labels, np.concatenate([part.labels for part in parts]))
        assert set(merged.patients.tolist()) == {
            f"{member.name}/{patient}"
            for member, part in zip(members, parts, strict=True)
            for patient in part.patients.tolist()
        }


def test_the_seeds_of_a_study_share_the_images_of_a_merged_site():
    opened = [open_site(small_config(seed=seed), {MEMBERS: "\n".join(SITES)}) for seed in (1, 2)]
    assert opened[0].data.train.images is opened[1].data.train.images
    other = open_site(small_config(data__seed=8), {MEMBERS: "\n".join(SITES)})
    assert other.data.train.images is not opened[0].data.train.images


def test_equal_names_at_two_sites_stay_two_patients(tmp_path):
    config = archive_config(write_tiny(tmp_path, sites=2))
    federation = open_federation(config.data)
    parts = [set(site.train.patients.tolist()) for site in federation.sites]
    merged = merge(list(federation.sites))
    assert parts[0] & parts[1]
    assert len(set(merged.train.patients.tolist())) == len(parts[0]) + len(parts[1])


@pytest.mark.parametrize("out", ["", "/runs/x"])
@pytest.mark.parametrize("store", ["", "/given"])
def test_the_store_lies_where_the_node_says_or_beside_the_run(out, store):
    site = open_site(small_config(out=out), {MEMBERS: "north", STORE: store})
    folder = store or (f"{out}/sites" if out else "")
    assert str(site.store) == (f"{folder}/north" if folder else "None")


def write_tiny(folder, sites=1, name="tiny"):
    rng = np.random.default_rng(0)
    count = 24 * sites
    path = folder / f"{name}.npz"
    write_archive(
        path,
        Dataset(
            name=name,
            images=rng.integers(0, 256, (count, 1, 16, 16), dtype=np.uint8),
            labels=rng.integers(0, 2, count),
            patients=np.array([f"p{index % 12}" for index in range(count)]),
            sites=np.arange(count) // 24,
            site_names=tuple(f"centre {index}" for index in range(sites)),
            classes=("no", "yes"),
        ),
    )
    return path


def archive_config(path, **changes):
    return small_config(data__name="archive", data__path=str(path), data__image_size=0, **changes)


def write_toml(folder, text=None, **values):
    path = folder / "site.toml"
    lines = {"name": '"St. Mary"', "state": f'"{folder}/state"', "device": '"cpu"', **values}
    body = "\n".join(f"{key} = {value}" for key, value in lines.items() if value is not None)
    path.write_text(text if text is not None else body + "\n[data]\n" + DATA.format(path=folder / "tiny.npz"))
    return path


DATA = 'name = "archive"\npath = "{path}"\nimage-size = 0\n'


def test_a_hospital_opens_its_own_archive_under_its_own_name(tmp_path):
    write_tiny(tmp_path)
    config = small_config(data__name="phantom")
    site = open_site(config, {SITE_FILE: str(write_toml(tmp_path))})
    assert (site.name, site.data.role) == ("St. Mary", "source")
    assert site.device == torch.device("cpu")
    assert len(site.data.train) + len(site.data.val) + len(site.data.test) == 24
    assert site.federation.name == "tiny"


def test_what_a_hospital_keeps_is_kept_apart_by_run(tmp_path):
    """Another run's normalisation arrays are of another model or of other rounds."""
    write_tiny(tmp_path)
    toml = {SITE_FILE: str(write_toml(tmp_path))}
    stores = [open_site(small_config(seed=seed, out=out), toml).store for seed, out in ((1, ""), (1, "/x"), (2, ""))]
    assert all(store.is_relative_to(tmp_path / "state") for store in stores)
    assert stores[0] == stores[1] != stores[2]


@pytest.mark.parametrize("held_out", ["St. Mary", "st. mary", "elsewhere, ST. MARY"])
def test_a_hospital_that_the_run_holds_out_is_held_out(tmp_path, held_out):
    write_tiny(tmp_path)
    config = small_config(data__held_out=held_out)
    assert open_site(config, {SITE_FILE: str(write_toml(tmp_path))}).data.role == "held-out"


def test_a_hospitals_archive_holds_one_site(tmp_path):
    write_tiny(tmp_path, sites=2)
    with pytest.raises(DataError, match="hold 2 sites"):
        open_site(small_config(), {SITE_FILE: str(write_toml(tmp_path))})


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"name": None}, "name"),
        ({"name": '""'}, "name"),
        ({"state": None}, "state"),
        ({"device": '"gpu"'}, "device"),
        ({"device": "3"}, "device"),
        ({"epsilon": "3.0"}, "epsilon"),
        ({"name": '"' + "x" * 65 + '"'}, "name"),
    ],
)
def test_wrong_settings_are_refused_by_key(tmp_path, values, found):
    with pytest.raises(ConfigError, match=f"site.toml is wrong:.*{found}"):
        read_site_config(write_toml(tmp_path, **values))


def test_no_data_section_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="data: Field required"):
        read_site_config(write_toml(tmp_path, 'name = "a"\nstate = "b"\n'))


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe\x00", b"name = 1\nname = 2\n"])
def test_what_is_no_toml_is_refused(tmp_path, content):
    (tmp_path / "site.toml").write_bytes(content)
    with pytest.raises(ConfigError, match="is not valid TOML"):
        read_site_config(tmp_path / "site.toml")


def test_a_missing_or_unreadable_file_is_refused(tmp_path):
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_site_config(path)


def test_an_unknown_data_setting_of_a_hospital_is_refused_with_the_nearest(tmp_path):
    write_tiny(tmp_path)
    path = write_toml(tmp_path)
    path.write_text(path.read_text() + "image-sise = 3\n")
    with pytest.raises(ConfigError, match=r"Did you mean 'data\.image-size'"):
        open_site(small_config(), {SITE_FILE: str(path)})


@pytest.mark.parametrize(
    "changes", [{"data__patient": ""}, {"data__patient": "labels"}, {"data__patient_pattern": "(p.)"}]
)
def test_a_run_cannot_say_who_a_patient_is(tmp_path, changes):
    # With `data.patient` empty every image would be a patient of its own, and the noise would hide images.
    write_tiny(tmp_path)
    path = write_toml(tmp_path)
    with pytest.raises(ConfigError, match="the hospital says alone"):
        open_site(small_config(**changes), {SITE_FILE: str(path)})
    path.write_text(path.read_text() + 'patient = "patient"\npatient-pattern = "(.*)"\n')
    assert open_site(small_config(**changes), {SITE_FILE: str(path)}).patients <= 12


def test_another_division_of_the_same_data_is_another_cohort(tmp_path):
    """Parts of one division share no patient; under a cap a training patient can become one of validation."""
    write_tiny(tmp_path)
    toml = {SITE_FILE: str(write_toml(tmp_path))}
    whole, again = open_site(small_config(), toml), open_site(small_config(seed=9), toml)
    capped = open_site(small_config(data__max_images_per_site=12), toml)
    seeded = open_site(small_config(data__seed=8), toml)
    assert whole.cohort == again.cohort
    assert len({whole.cohort, capped.cohort, seeded.cohort}) == 3


NAMES = ["a", "A b", "a/b", "../..", "Zürich", "%", "a%20b", "\x02f", "/", "x" * 300, "x" * 301, ".", "a + b"]


def test_folder_names_are_safe_and_distinct():
    made = [folder_name(name) for name in NAMES]
    assert len(set(made)) == len(NAMES)
    assert all("/" not in name and name.strip(".") and len(name.encode()) <= 240 for name in made)
    assert folder_name("harbour") == "harbour"


def test_two_characters_cannot_pass_for_one():
    assert folder_name("\x02f") != folder_name("/")
    assert folder_name("%2f%") != folder_name("/")
