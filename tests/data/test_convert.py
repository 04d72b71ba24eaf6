"""Converters: what Caffe's tools write, whole or absent."""

import gzip
import os
import struct
import sys
import tarfile

import cv2
import numpy as np
import pytest

from dtrain.data.backends import open_reader
from dtrain.data.convert.cifar10 import CLASSES, convert_cifar10
from dtrain.data.convert.digits import convert_digits
from dtrain.data.convert.imageset import ImagesetFlags, convert_imageset
from dtrain.data.convert.lmdb_writer import write_lmdb
from dtrain.data.convert.mean import compute_mean
from dtrain.data.convert.mnist import convert_mnist, read_idx
from dtrain.data.leveldb_reader import leveldb
from dtrain.data.lmdb_reader import LmdbReader
from dtrain.data.mean_file import read_mean
from dtrain.errors import BackendError, ConfigError, DataError
from tests.data.sources import images, lmdb_of
from tests.shared import shared_path


def all_of(path):
    reader = LmdbReader(str(path))
    records = [reader.read(i) for i in range(len(reader))]
    reader.close()
    return records


def keys_of(path):
    return [record.where.rpartition("(key ")[2][:-1] for record in all_of(path)]


def write_mnist(folder, num=7):
    pixels = images(num, (28, 28))
    for prefix in ("train", "t10k"):
        header = struct.pack(">4I", 2051, num, 28, 28)
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pixels.tobytes()))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2I", 2049, num) + bytes(range(num))
        )
    return pixels


def test_mnist_becomes_two_databases(tmp_path):
    pixels = write_mnist(tmp_path)
    out = tmp_path / "out"
    written = convert_mnist(str(tmp_path), str(out))
    assert list(written.values()) == [7, 7]
    for path in written:
        records = all_of(path)
        np.testing.assert_array_equal(np.stack([r.pixels for r in records])[:, 0], pixels)
        assert [r.labels[0] for r in records] == list(range(7))
        assert keys_of(path) == [f"{n:08d}" for n in range(7)]
    assert sorted(os.listdir(out)) == ["mnist_test_lmdb", "mnist_train_lmdb"]


def test_an_existing_database_is_replaced_only_when_told(tmp_path):
    write_mnist(tmp_path)
    out = str(tmp_path / "out")
    convert_mnist(str(tmp_path), out)
    with pytest.raises(DataError, match="must not exist yet"):
        convert_mnist(str(tmp_path), out)
    write_mnist(tmp_path, 5)
    assert set(convert_mnist(str(tmp_path), out, overwrite=True).values()) == {5}
    assert len(all_of(out + "/mnist_train_lmdb")) == 5
    assert sorted(os.listdir(out)) == ["mnist_test_lmdb", "mnist_train_lmdb"]


def test_foreign_and_cut_idx_files_are_refused(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(struct.pack(">2I", 2051, 3) + b"abc")
    with pytest.raises(DataError, match="magic number 2049, got 2051"):
        read_idx(str(path), 1)
    path.write_bytes(struct.pack(">2I", 2049, 4) + b"abc")
    with pytest.raises(DataError, match="must hold 4 values after its header, got 3"):
        read_idx(str(path), 1)
    with pytest.raises(DataError, match="must hold train-images-idx3-ubyte"):
        convert_mnist(str(tmp_path), str(tmp_path / "out"))


def test_a_failed_conversion_leaves_nothing(tmp_path):
    def records():
        yield b"00000000", b"x"
        raise DataError("image 1 is broken")

    with pytest.raises(DataError, match="image 1 is broken"):
        write_lmdb(str(tmp_path / "db"), records())
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_to_the_end(tmp_path):
    seen = []
    write_lmdb(str(tmp_path / "db"), ((b"%08d" % n, b"") for n in range(2500)), progress=seen.append)
    assert seen == [1000, 2000, 2500]


def test_real_mnist_has_its_digits(tmp_path):
    source = shared_path("data", "mnist")
    images_10k = read_idx(str(source / "t10k-images-idx3-ubyte.gz"), 3)
    labels_10k = read_idx(str(source / "t10k-labels-idx1-ubyte.gz"), 1)
    assert images_10k.shape == (10000, 28, 28)
    assert np.bincount(labels_10k).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_cifar_batches_keep_order_and_planes(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (6, 4, 3073), dtype=np.uint8)
    rows[:, :, 0] %= 10
    names = [f"data_batch_{n}.bin" for n in range(1, 6)] + ["test_batch.bin"]
    for name, batch in zip(names, rows, strict=True):
        (tmp_path / name).write_bytes(batch.tobytes())
    written = convert_cifar10(str(tmp_path), str(tmp_path / "out"))
    assert list(written.values()) == [20, 4]
    train = all_of(tmp_path / "out/cifar10_train_lmdb")
    expected = rows[:5].reshape(20, 3073)
    np.testing.assert_array_equal(np.stack([r.pixels for r in train]).reshape(20, -1), expected[:, 1:])
    assert [r.labels[0] for r in train] == expected[:, 0].tolist()
    assert keys_of(tmp_path / "out/cifar10_train_lmdb")[19] == "00019"
    mean = read_mean(str(tmp_path / "out/mean.binaryproto"))
    np.testing.assert_allclose(mean.ravel(), expected[:, 1:].mean(axis=0), rtol=1e-6)


def write_cifar_folder(folder):
    pixels = {}
    for name in ("train", "test"):
        for label, kind in enumerate(CLASSES):
            (folder / name / kind).mkdir(parents=True)
            for n in range(3):
                image = images(1, (3, 32, 32), seed=len(pixels))[0]
                pixels[name, label, n] = image
                cv2.imwrite(str(folder / name / kind / f"{n:04d}.png"), image.transpose(1, 2, 0))
    return pixels


def test_cifar_images_are_written_once_each_in_a_fixed_mixed_order(tmp_path):
    pixels = write_cifar_folder(tmp_path / "in")
    with tarfile.open(tmp_path / "in.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "in/train", "train")
        tar.add(tmp_path / "in/test", "test")
    sources = {"a": "in", "b": "in.tar.gz", "c": "in"}
    for out, source in sources.items():
        convert_cifar10(str(tmp_path / source), str(tmp_path / out), mean=False, seed=2 if out == "c" else 1)
    a, b, c = (
        [(r.labels[0], r.pixels.tobytes()) for r in all_of(tmp_path / x / "cifar10_train_lmdb")]
        for x in "abc"
    )
    assert a == b
    assert a != c
    everything = sorted(
        (float(label), image.tobytes()) for (name, label, _), image in pixels.items() if name == "train"
    )
    assert sorted(a) == sorted(c) == everything
    labels = [label for label, _ in a]
    assert labels != sorted(labels)


def test_a_folder_that_is_no_class_is_named(tmp_path):
    write_cifar_folder(tmp_path / "in")
    os.rename(tmp_path / "in/train/cat", tmp_path / "in/train/lynx")
    with pytest.raises(DataError, match=r"folder must be one of airplane, .* got lynx"):
        convert_cifar10(str(tmp_path / "in"), str(tmp_path / "out"))
    with pytest.raises(DataError, match="must be a folder or a tar file, got no such path"):
        convert_cifar10(str(tmp_path / "nowhere"), str(tmp_path / "out"))


def test_digits_are_split_by_class_without_overlap(tmp_path):
    written = convert_digits(str(tmp_path))
    train, test = (all_of(path) for path in written)
    assert len(train) + len(test) == 1797
    shares = np.bincount([int(r.labels[0]) for r in test]) / np.bincount(
        [int(r.labels[0]) for r in train + test]
    )
    assert ((shares > 0.19) & (shares <= 0.2)).all()
    assert train[0].pixels.shape == (1, 28, 28)
    assert all(r.pixels.max() > 200 and not r.pixels[0, :4].any() for r in test)
    again = convert_digits(str(tmp_path / "again"))
    same = all_of(next(iter(again)))
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(train, same, strict=True))


def test_the_mean_is_that_of_caffe(tmp_path):
    root = shared_path("golden", "data")
    mean = compute_mean(str(root / "raw_lmdb"), str(tmp_path / "mean.binaryproto"))
    golden = read_mean(str(root / "mean.binaryproto"))
    np.testing.assert_allclose(mean, golden, rtol=1e-6)
    np.testing.assert_array_equal(read_mean(str(tmp_path / "mean.binaryproto")), mean)


def test_a_mean_needs_images_of_one_size(tmp_path):
    path = str(tmp_path / "db")
    from dtrain.data.datum import encode_pixels

    write_lmdb(
        path,
        [
            (b"00000000", encode_pixels(images(1, (1, 2, 2))[0], 0)),
            (b"00000001", encode_pixels(images(1, (1, 2, 3))[0], 0)),
        ],
    )
    with pytest.raises(DataError, match=r"record 1 .*same shape for a mean"):
        compute_mean(path)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("raw_lmdb", ImagesetFlags(resize_height=64, resize_width=72)),
        ("gray_lmdb", ImagesetFlags(resize_height=32, resize_width=32, gray=True)),
        ("encoded_lmdb", ImagesetFlags(encoded=True)),
    ],
)
def test_an_image_list_becomes_the_database_that_caffe_wrote(tmp_path, name, flags):
    root = shared_path("golden", "data")
    folder = str(shared_path("data", "imagenet-sample")) + "/"
    out = str(tmp_path / "db")
    assert convert_imageset(folder, str(root / "list.txt"), out, flags) == 9
    ours, golden = all_of(out), all_of(root / name)
    assert keys_of(out) == keys_of(root / name)
    for a, b in zip(ours, golden, strict=True):
        assert a.labels == b.labels
        if flags.encoded:
            assert bytes(a.encoded) == bytes(b.encoded)
        else:
            assert a.pixels.shape == b.pixels.shape
            assert np.abs(a.pixels.astype(int) - b.pixels.astype(int)).max() <= 2


def write_list(tmp_path, num=6):
    pixels = images(num, (3, 10, 12))
    for n, image in enumerate(pixels):
        cv2.imwrite(str(tmp_path / f"i{n}.png"), image.transpose(1, 2, 0))
    (tmp_path / "list.txt").write_text("".join(f"i{n}.png {n}\n" for n in range(num)))
    return pixels, (str(tmp_path) + "/", str(tmp_path / "list.txt"), str(tmp_path / "db"))


def test_shuffle_mixes_the_lines_and_keeps_their_labels(tmp_path):
    pixels, arguments = write_list(tmp_path)
    convert_imageset(*arguments, ImagesetFlags(shuffle=True))
    records = all_of(arguments[2])
    labels = [int(r.labels[0]) for r in records]
    assert sorted(labels) == list(range(6))
    assert labels != list(range(6))
    for record, label, key in zip(records, labels, keys_of(arguments[2]), strict=True):
        np.testing.assert_array_equal(record.pixels, pixels[label])
        assert key.endswith(f"_i{label}.png")


def test_encode_type_encodes_anew(tmp_path):
    pixels, arguments = write_list(tmp_path)
    convert_imageset(*arguments, ImagesetFlags(encode_type="bmp"))
    for record, image in zip(all_of(arguments[2]), pixels, strict=True):
        assert bytes(record.encoded[:2]) == b"BM"
        decoded = cv2.imdecode(np.frombuffer(record.encoded, np.uint8), -1)
        np.testing.assert_array_equal(decoded, image.transpose(1, 2, 0))


def test_unreadable_and_unequal_images_stop_the_conversion(tmp_path):
    _, arguments = write_list(tmp_path)
    cv2.imwrite(str(tmp_path / "i4.png"), np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(DataError, match=r"i4\.png: image must have the shape of the first"):
        convert_imageset(*arguments, ImagesetFlags(check_size=True))
    (tmp_path / "i2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"i2\.png: must be an image that OpenCV decodes"):
        convert_imageset(*arguments)
    assert not (tmp_path / "db").exists()
    with pytest.raises(
        ConfigError, match="resize_width and resize_height must be given together, got 4 and 0"
    ):
        convert_imageset(*arguments, ImagesetFlags(resize_width=4))
    with pytest.raises(ConfigError, match=r'unknown backend "level"; .* \(known: leveldb, lmdb\)'):
        convert_imageset(*arguments, backend="level")


def test_a_list_becomes_the_same_records_in_either_database(tmp_path):
    root, list_file, _ = write_list(tmp_path)[1]
    told = {}
    for backend in ("lmdb", "LevelDB"):
        out = str(tmp_path / backend.lower())
        counts = []
        flags = ImagesetFlags(shuffle=True, encoded=True)
        assert convert_imageset(root, list_file, out, flags, backend=backend, progress=counts.append) > 1
        reader = open_reader(out, backend.upper())
        told[backend] = [reader.where(n).removeprefix(out) for n in range(len(reader))]
        told[backend] += [(r.labels, bytes(r.encoded)) for r in map(reader.read, range(len(reader)))]
        assert counts == [len(reader)]
        reader.close()
    assert told["lmdb"] == told["LevelDB"]
    with pytest.raises(DataError, match="leveldb: must not exist yet"):
        convert_imageset(root, list_file, out, backend="leveldb")
    convert_imageset(root, list_file, out, backend="leveldb", overwrite=True)
    (tmp_path / "i2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"i2\.png: must be an image"):
        convert_imageset(root, list_file, str(tmp_path / "partial"), backend="leveldb")
    left = {name for name in os.listdir(tmp_path) if not name.endswith((".png", ".txt"))}
    assert left == {"lmdb", "leveldb"}


def test_a_leveldb_without_its_package_says_how_to_get_it(tmp_path, monkeypatch):
    root, list_file, out = write_list(tmp_path)[1]
    monkeypatch.setitem(sys.modules, "plyvel", None)
    leveldb.cache_clear()
    with pytest.raises(BackendError, match=r"plyvel must be installed, .*; pip install 'dtrain\[leveldb\]'"):
        convert_imageset(root, list_file, out, backend="leveldb")
    assert not os.path.exists(out)


def test_a_database_converted_over_a_link_replaces_the_link(tmp_path):
    real = lmdb_of(tmp_path / "real", images(2))
    os.symlink(real, tmp_path / "link")
    write_lmdb(str(tmp_path / "link"), [(b"00000000", b"")], overwrite=True)
    assert not (tmp_path / "link").is_symlink()
    assert len(all_of(real)) == 2
