"""Whatever a file holds: the right content, or an error that says what is wrong."""

import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookline.io.ffrecord import FFRecordError, FileReader, FileWriter, PackedFolder, pack_folder, unpack_folder

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..")
)
TREES = st.recursive(
    st.binary(max_size=40), lambda below: st.dictionaries(NAMES, below, max_size=4), max_leaves=12
).filter(lambda tree: isinstance(tree, dict))


@settings(max_examples=60, deadline=None)
@given(samples=st.lists(st.binary(max_size=300), max_size=20), data=st.data())
def test_what_is_written_is_read(tmp_path_factory, samples, data):
    file = tmp_path_factory.mktemp("records") / "x.ffr"
    with FileWriter(file, len(samples)) as writer:
        for sample in samples:
            writer.write_one(sample)
    with FileReader(file) as reader:
        assert reader.n == len(samples)
        indices = data.draw(st.lists(st.integers(0, len(samples) - 1))) if samples else []
        assert [sample.tobytes() for sample in reader.read(indices)] == [samples[i] for i in indices]


def write_tree(tree, folder):
    folder.mkdir()
    for name, entry in tree.items():
        if isinstance(entry, dict):
            write_tree(entry, folder / name)
        else:
            (folder / name).write_bytes(entry)


def read_tree(folder):
    return {p.name: read_tree(p) if p.is_dir() else p.read_bytes() for p in folder.iterdir()}


@settings(max_examples=40, deadline=None)
@given(tree=TREES, num_parts=st.integers(1, 3))
def test_a_tree_comes_back(tmp_path_factory, tree, num_parts):
    folder = tmp_path_factory.mktemp("tree")
    write_tree(tree, folder / "in")
    pack_folder(folder / "in", folder / "x.ffr", num_parts=num_parts)
    unpack_folder(folder / "x.ffr", folder / "out")
    assert read_tree(folder / "out") == tree
    with PackedFolder(folder / "x.ffr") as pack:
        assert sorted(pack.list()) == sorted(tree)


def mutate(data, random_):
    data = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 5))):
        if not data:
            break
        at = random_.randrange(len(data)) if random_.random() < 0.5 else random_.randrange(min(len(data), 80))
        how = random_.randrange(6)
        if how == 0:
            data[at] ^= 1 << random_.randrange(8)
        elif how == 1:
            data[at : at + 8] = random_.choice((b"\xff" * 8, b"\0" * 8, random_.randbytes(8), b"\xff" * 7 + b"\x7f"))
        elif how == 2:
            del data[at:]
        elif how == 3:
            data += random_.randbytes(random_.randrange(1, 40))
        elif how == 4:
            del data[at : at + random_.randrange(1, 9)]
        else:
            data[at:at] = random_.randbytes(random_.randrange(1, 9))
    return bytes(data)


@pytest.mark.parametrize("check_data", [True, False])
def test_a_thousand_mutations(tmp_path, test_data, check_data):
    """Checked files give what was written or an error; unchecked ones never more than the file's bytes."""
    random_ = random.Random(5)
    write_tree({"a": {"b.txt": b"text", "c": b""}, "d": b"x" * 100, "e": {}}, tmp_path / "in")
    pack_folder(tmp_path / "in", tmp_path / "in.ffr")
    sources = [tmp_path / "in.ffr", test_data / "ffrecord/three.ffr", test_data / "ffrecord/parts/PART_00000.ffr"]
    contents = {}
    for source in sources:
        with FileReader(source) as reader:
            contents[source] = [reader.read_bytes(i) for i in range(reader.n)]
    file, refused, unnamed = tmp_path / "mutated.ffr", 0, 0
    tracemalloc.start()
    try:
        for number in range(1000):
            source = sources[number % len(sources)]
            data = mutate(source.read_bytes(), random_)
            file.write_bytes(data)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                with FileReader(file, check_data, mapped=bool(number % 2)) as reader:
                    found = [reader.read_bytes(i) for i in range(reader.n)]
                    assert sum(map(len, found)) <= len(data)
                    assert [sample.tobytes() for sample in reader.read(range(reader.n))] == found
                if check_data:
                    assert found == contents[source], "damage was not noticed"
                with PackedFolder(file, check_data) as pack:
                    for path in pack.list(list_dir=False, recursive=True):
                        pack.read_one(path)
            except FFRecordError as error:
                unnamed += str(file) not in str(error)
                refused += 1
            taken = tracemalloc.get_traced_memory()[1] - before
            assert taken < 40 * len(data) + 200_000, (taken, len(data))
    finally:
        tracemalloc.stop()
    assert refused > 500
    assert unnamed == 0
