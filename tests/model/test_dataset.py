"""Splits that do not depend on how the data is read, and samples larger than a window."""

from __future__ import annotations

import numpy as np
import pytest

from l1ad import Events
from l1ad.config import DataConfig, SplitConfig
from l1ad.errors import InputError
from l1ad.model import dataset
from l1ad.model.dataset import Splitter, read_training_data


@pytest.fixture(scope="module")
def files(tmp_path_factory, make_crossings):
    """Two files; the run, lumi and weight of each event are known."""
    folder = tmp_path_factory.mktemp("files")
    paths = []
    for number in range(2):
        events = make_crossings(3000, 30 + number)
        lumi = np.repeat(np.arange(60), 50) + 100 * number
        weight = np.full(3000, 1.0 + number)
        events = events.with_columns(run=np.full(3000, 7), lumi=lumi, weight=weight)
        paths.append(folder / f"part{number}.h5")
        events.write(paths[-1])
    return paths


def config(files, **changes):
    return DataConfig(**{"paths": [str(f) for f in files], **changes})


def parts(splitter, events, size):
    return np.concatenate([splitter(piece) for piece in events.chunks(size)])


@pytest.mark.parametrize("by", ["seed", "lumi"])
def test_a_split_does_not_depend_on_the_pieces(files, by):
    events = Events.read(files[0])
    choice = SplitConfig(by=by, train=0.6, validation=0.2, test=0.2)
    whole = parts(Splitter(choice, 3), events, 3000)
    assert np.array_equal(whole, parts(Splitter(choice, 3), events, 171))
    assert not np.array_equal(whole, parts(Splitter(choice, 4), events, 3000))
    assert np.allclose([np.mean(whole == k) for k in range(3)], [0.6, 0.2, 0.2], atol=0.03 if by == "seed" else 0.2)
    if by == "lumi":
        for lumi in range(60):
            assert len(set(whole[events.columns["lumi"] == lumi])) == 1


def test_every_event_is_in_one_part(files, tmp_path):
    data = read_training_data(config(files), seed=1, cache=tmp_path)
    assert data.n_train + len(data.validation[0]) + data.n_test == 6000
    assert data.counts.n_events == data.n_train
    assert np.mean(data.train[1]) == pytest.approx(1.0, rel=1e-5)
    assert set(np.unique(np.round(data.train[1] / data.train[1].min(), 3))) == {1.0, 2.0}
    assert set(data.inputs) == {"part0.h5", "part1.h5"}
    assert len(read_training_data(config(files, max_events=100), seed=1, cache=tmp_path).train[0]) < 100


def test_a_sample_larger_than_a_window_is_streamed(files, tmp_path, monkeypatch):
    """The same events as in memory, each once an epoch, in another order in another epoch."""
    monkeypatch.setattr(dataset, "BLOCK_EVENTS", 256)
    monkeypatch.setattr(dataset, "CHUNK_EVENTS", 500)
    small = read_training_data(config(files), seed=1, cache=tmp_path / "a")
    large = read_training_data(config(files, window_events=1024), seed=1, cache=tmp_path / "b")
    assert isinstance(large.train[0], np.memmap)
    assert np.array_equal(small.train[0], large.train[0])
    assert np.array_equal(small.train[1], large.train[1])

    def epoch(number):
        windows = list(large.windows(1024, seed=5, epoch=number))
        assert max(len(codes) for codes, _ in windows) <= 1024
        assert len(windows) > 3
        return np.concatenate([codes for codes, _ in windows])

    first, second = epoch(0), epoch(1)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, epoch(0))

    def ordered(rows):
        return rows[np.lexsort(rows.T)]

    assert np.array_equal(ordered(first), ordered(np.asarray(small.train[0])))


def test_what_cannot_be_trained_on(files, tmp_path, make_crossings):
    def read(**changes):
        return read_training_data(config(files, **changes), seed=1, cache=tmp_path)

    with pytest.raises(InputError, match="layout: found cms_ugt, expected atlas_l1topo"):
        read(layout="atlas_l1topo")
    with pytest.raises(InputError, match="validation split: found 0 events"):
        read(max_events=20, split=SplitConfig(train=0.98, validation=0.01, test=0.01))
    plain = tmp_path / "plain.h5"
    make_crossings(50, 1).write(plain)
    with pytest.raises(InputError, match="column lumi"):
        read(paths=[str(plain)], split=SplitConfig(by="lumi"))
    weightless = tmp_path / "weightless.h5"
    make_crossings(50, 1).with_columns(weight=np.zeros(50)).write(weightless)
    with pytest.raises(InputError, match="training split"):
        read(paths=[str(weightless)])
    assert read(paths=[str(weightless)], weights="ignore").n_train > 30
    with pytest.raises(InputError, match="no such file"):
        read(paths=[str(tmp_path / "absent.h5")])
