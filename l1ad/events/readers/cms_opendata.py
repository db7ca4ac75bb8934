"""CMS Level-1 anomaly detection open data (Zenodo 10.5281/zenodo.21787779, CC0): parquet with hardware integers.

Three arrangements of the same columns are read:

- one file with a column ``jets_jetIEt`` and so on, the seeds beside them or not at all;
- such a file with its seeds in the file of the same name in the folder ``seeds`` beside it (the Hugging Face mirror);
- a folder with one subfolder an object (``jets/``, ``muons/``, ``event_info/``, ``seeds/``), each with shards of the
  same names and rows, where the column is only ``jetIEt`` (the Zenodo record).

Muons need two conversions that the data's own description gives: the momentum is (`muonIEt` - 1) x 0.5 GeV, since the
word 0 marks the absence of a muon, and they do not come in order of momentum. Calorimeter objects need neither.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.events.readers._files import is_object_folder
from l1ad.events.readers._jagged import Jagged, fill_group, fill_met, one_per_event, same_lengths
from l1ad.events.readers._muons import MuonPt, check_muon_pt, muon_codes, muon_note
from l1ad.events.readers._source import Block, FileSource, narrow_column
from l1ad.events.store import MenuBits

#: Group of the layout: columns of pt, eta and phi.
OBJECTS = {
    "eg": ("egammas_egIEt", "egammas_egIEta", "egammas_egIPhi"),
    "mu": ("muons_muonIEt", "muons_muonIEtaAtVtx", "muons_muonIPhiAtVtx"),
    "jet": ("jets_jetIEt", "jets_jetIEta", "jets_jetIPhi"),
}
MET = ("MET_Et", "MET_phi")
#: Per-event numbers: our name, theirs. Energies in codes of 0.5 GeV, angles in codes of 2 pi / 144.
COLUMNS = {
    "run": "run",
    "lumi": "lumi",
    "bx": "bx",
    "orbit": "orbit",
    "event": "event",
    "n_pv": "nPV_True",
    "et": "ET_Et",
    "et_em": "ET_ETTEM",
    "ht": "HT_Et",
    "tower_count": "HT_tower_count",
    "mht": "MHT_Et",
    "mht_phi": "MHT_phi",
    "met_hf": "FET_Et",
    "met_hf_phi": "FET_phi",
    "mht_hf": "FHT_Et",
    "mht_hf_phi": "FHT_phi",
    "cicada": "cica_CICADAScore",
    "label": "label",
    "order": "order",
}
SPLITS = ("train", "valid", "validation", "test")


@dataclass(frozen=True)
class _Part:
    """One parquet file of those that are read side by side, and what its columns are called in the flat arrangement."""

    path: str
    file: Any
    names: Mapping[str, str]
    seeds: frozenset[str]


class OpenDataFile(FileSource):
    """A file, or a folder of shards, of the CMS Level-1 anomaly detection open data.

    Parameters
    ----------
    path : a parquet file, or a folder with one subfolder an object.
    saturation : ``keep``, ``mask`` or ``drop``.
    split : only the events of this split (``train``, ``valid`` or ``test``), from the column or the file's name.
    muon_pt : ``physical`` (code x 0.5 GeV is the momentum) or ``word`` (the code is `muonIEt` itself).

    Raises
    ------
    InputError
        If a file is absent, truncated, not parquet or lacks a column.
    """

    format_name = "cms_opendata"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        saturation: str = "keep",
        split: str | None = None,
        muon_pt: str = "physical",
    ) -> None:
        super().__init__(os.fspath(path), "cms_ugt", saturation)
        self._muon_pt: MuonPt = check_muon_pt(muon_pt)
        if split is not None and split not in SPLITS:
            raise InputError("option", "split", split, f"one of {', '.join(SPLITS)}")
        try:
            self._shards = self._open(Path(path))
            self._check_columns()
            self._split = self._resolve_split(split)
        except BaseException:
            self.close()
            raise
        self._notes.append(
            muon_note("muonIEt", self._muon_pt)
            + "; eta and phi are muonIEtaAtVtx and muonIPhiAtVtx, extrapolated to the vertex"
        )
        self._notes.append(
            "taus have no slot in the layout cms_ugt and are left out; n_pv is the average pile-up nPV_True"
        )
        if not self._seeds:
            self._notes.append("no menu bits: neither in the file nor in a folder seeds beside it")
        self._meta = {"muon_pt": self._muon_pt, "muon_coordinates": "vertex"}
        if self._split is not None:
            self._meta["split"] = self._split

    # ------------------------------------------------------------------ opening

    def _open(self, path: Path) -> list[list[_Part]]:
        """The shards, one after the other, each a list of files to be read side by side."""
        if is_object_folder(path):
            return self._open_folder(path)
        shard = [self._part(path, "")]
        seeds = path.parent / "seeds" / path.name
        if seeds.exists():
            shard.append(self._part(seeds, ""))
        self._check_rows(shard)
        return [shard]

    def _open_folder(self, path: Path) -> list[list[_Part]]:
        folders = sorted(entry for entry in path.iterdir() if entry.is_dir())
        shards: list[list[_Part]] = []
        names = sorted(file.name for file in (path / "jets").glob("*.parquet"))
        if not names:
            raise InputError(str(path / "jets"), "folder", "no parquet file", "one at least")
        for folder in folders:
            found = sorted(file.name for file in folder.glob("*.parquet"))
            if len(found) != len(names):
                raise InputError(str(folder), "shards", len(found), f"{len(names)}, as in jets")
        listings = {folder.name: sorted(folder.glob("*.parquet")) for folder in folders}
        for i in range(len(names)):
            shard = []
            for folder in folders:
                prefix = "" if folder.name in ("event_info", "seeds") else f"{folder.name}_"
                shard.append(self._part(listings[folder.name][i], prefix))
            self._check_rows(shard)
            shards.append(shard)
        return shards

    def _part(self, path: Path, prefix: str) -> _Part:
        file = self._stack.enter_context(open_parquet(path))
        names, booleans = {}, set()
        for field in file.schema_arrow:
            flat = prefix + field.name
            for group in ("event_info_", "seeds_"):
                flat = flat.removeprefix(group)
            names[flat] = field.name
            if flat.startswith("L1") and _is_bool(field.type):
                booleans.add(flat)
        return _Part(str(path), file, names, frozenset(booleans))

    def _check_rows(self, shard: Sequence[_Part]) -> None:
        rows = shard[0].file.metadata.num_rows
        for part in shard[1:]:
            if part.file.metadata.num_rows != rows:
                raise InputError(part.path, "rows", part.file.metadata.num_rows, f"{rows}, as in {shard[0].path}")

    def _check_columns(self) -> None:
        first = self._shards[0]
        there = {flat for part in first for flat in part.names}
        for name in (*(column for columns in OBJECTS.values() for column in columns), *MET):
            if name not in there:
                found = ", ".join(sorted(there)[:4]) or "no columns"
                raise InputError(self.path, f"column {name}", f"{found}, ...", "the columns of the CMS L1 open data")
        self._columns = {ours: theirs for ours, theirs in COLUMNS.items() if theirs in there}
        seeds = [flat for part in first for flat in part.names if flat in part.seeds]
        self._seeds: tuple[str, ...] = tuple(dict.fromkeys(seeds))
        self._has_split = "split" in there
        for shard in self._shards[1:]:
            names = {flat for part in shard for flat in part.names}
            for name in (*self._columns.values(), *self._seeds):
                if name not in names:
                    raise InputError(shard[0].path, f"column {name}", "nothing", f"the columns of {first[0].path}")

    def _resolve_split(self, split: str | None) -> str | None:
        if split is None or self._has_split:
            return split
        path = Path(self.path)
        named = re.match(rf"({'|'.join(SPLITS)})\b", path.name)
        label = named.group(1) if named else path.parent.name
        if label not in SPLITS:
            raise InputError(self.path, "split", "no column split and none in the name", f"a file that says {split}")
        if _same_split(label, split):
            return split
        self._shards = [[]]
        return split

    # ------------------------------------------------------------------ reading

    @property
    def n_events(self) -> int | None:
        """Number of events; None if a column has to be read to know which belong to the split."""
        if self._split is not None and self._has_split:
            return None
        return sum(int(shard[0].file.metadata.num_rows) for shard in self._shards if shard)

    def _blocks(self, size: int) -> Iterator[Block]:
        wanted = [*(column for columns in OBJECTS.values() for column in columns), *MET]
        wanted += [*self._columns.values(), *self._seeds]
        filtered = self._split is not None and self._has_split
        if filtered:
            wanted.append("split")
        some = False
        for shard in self._shards:
            for batch in _side_by_side(shard, wanted, size):
                some = True
                yield self._block(_chosen(batch, self._split) if filtered and self._split else batch)
        if not some:
            yield self._empty()

    def _empty(self) -> Block:
        zero = {name: np.zeros(0, dtype=np.float32 if name == "n_pv" else np.int64) for name in self._columns}
        columns = {name: narrow_column(name, values, where=self.path, field=name) for name, values in zero.items()}
        bits = MenuBits.from_bools({name: np.zeros(0, dtype=bool) for name in self._seeds}, 0)
        return Block(np.zeros((0, *self.layout.shape), dtype=np.int16), columns, bits)

    def _block(self, batch: Mapping[str, Any]) -> Block:
        n = len(batch[MET[0]])
        hw = np.zeros((n, *self.layout.shape), dtype=np.int16)
        counts = {"surplus_objects": 0, "clipped_objects": 0}
        unsorted = np.zeros(n, dtype=bool)
        for group, names in OBJECTS.items():
            lists = [_jagged(batch[name], self.path, name) for name in names]
            same_lengths(lists, names, self.path)
            if group == "mu":
                lists = muon_codes(lists, self.layout, self._muon_pt, where=self.path, field=names[0])
            values = [part.values for part in lists]
            filled = fill_group(hw, self.layout, group, lists[0].offsets, values, where=self.path, fields=names)
            counts["surplus_objects"] += filled.surplus
            counts["clipped_objects"] += filled.clipped
            unsorted |= filled.unsorted
        met = [_scalar(batch[name], self.path, name)[0] for name in MET]
        counts["clipped_objects"] += fill_met(hw, self.layout, met, where=self.path, fields=MET)
        counts["unsorted_events"] = int(unsorted.sum())
        columns = {}
        for ours, theirs in self._columns.items():
            values_column, present_column = _scalar(batch[theirs], self.path, theirs)
            if not present_column.all():
                counts[f"missing_{ours}"] = int((~present_column).sum())
            columns[ours] = narrow_column(ours, values_column, where=self.path, field=theirs)
        bits = MenuBits.from_bools(
            {name: _scalar(batch[name], self.path, name)[0].astype(bool, copy=False) for name in self._seeds}, n
        )
        return Block(hw, columns, bits, counts)


def open_parquet(path: str | os.PathLike[str]) -> Any:
    """Open a parquet file.

    Raises
    ------
    InputError
        If it is absent, empty, truncated or not parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = os.fspath(path)
    try:
        size = os.path.getsize(path)
        if not size:
            raise InputError(text, "file", "0 bytes", "a parquet file")
        with open(path, "rb") as stream:
            head = stream.read(4)
            stream.seek(max(size - 4, 0))
            tail = stream.read(4)
    except OSError as error:
        raise InputError(text, "file", error.strerror or error, "a parquet file") from error
    if head != b"PAR1":
        raise InputError(text, "first bytes", head.hex(" "), "a parquet file")
    if tail != b"PAR1":
        raise InputError(text, "file", f"a truncated file of {size} bytes", "a complete parquet file")
    try:
        return pq.ParquetFile(text)
    except (pa.ArrowException, OSError) as error:
        raise InputError(text, "footer", str(error).splitlines()[0][:80], "a complete parquet file") from error


def _is_bool(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_boolean(kind))


def _side_by_side(shard: Sequence[_Part], wanted: Sequence[str], size: int) -> Iterator[dict[str, Any]]:
    """Pieces of at most `size` rows of files with the same rows, as arrow arrays by flat name.

    Files may be cut into row groups at different places: each piece ends where the first of them does.
    """
    import pyarrow as pa

    streams = []
    for part in shard:
        names = {flat: part.names[flat] for flat in wanted if flat in part.names}
        if names:
            streams.append((part, names, part.file.iter_batches(batch_size=size, columns=list(names.values()))))
    held: list[Any] = [None] * len(streams)
    while streams:
        for i, (part, _, batches) in enumerate(streams):
            if held[i] is None or not held[i].num_rows:
                try:
                    held[i] = next(batches, None)
                except (pa.ArrowException, OSError) as error:
                    reason = f"damaged data ({str(error).splitlines()[0][:80]})"
                    raise InputError(part.path, "data", reason, "a complete parquet file") from error
        if any(batch is None for batch in held):
            return
        rows = min(batch.num_rows for batch in held)
        piece: dict[str, Any] = {}
        for i, (_, names, _) in enumerate(streams):
            for flat, name in names.items():
                piece.setdefault(flat, held[i].column(name).slice(0, rows))
            held[i] = held[i].slice(rows)
        if rows:
            yield piece


def _chosen(batch: Mapping[str, Any], split: str) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    labels = batch["split"]
    if isinstance(labels, pa.ListArray):
        labels = labels.flatten()
    if isinstance(labels, pa.DictionaryArray):
        labels = labels.dictionary_decode()
    chosen = [text for text in SPLITS if _same_split(text, split)]
    keep = pc.is_in(labels, value_set=pa.array(chosen, type=labels.type))
    return {name: values.filter(keep) for name, values in batch.items()}


def _same_split(label: str, split: str) -> bool:
    # `valid` and `validation` are both in use.
    return label.removesuffix("ation") == split.removesuffix("ation")


def _jagged(array: Any, path: str, field: str) -> Jagged:
    import pyarrow as pa

    if not isinstance(array, (pa.ListArray, pa.LargeListArray)):
        raise InputError(path, field, f"values of type {array.type}", "lists of integers")
    if array.null_count or array.values.null_count:
        raise InputError(path, field, "missing values (null)", "lists of integers")
    if not pa.types.is_integer(array.type.value_type):
        raise InputError(path, field, f"lists of {array.type.value_type}", "lists of integers")
    return Jagged.from_slice(array.offsets.to_numpy(), array.values.to_numpy())


def _scalar(array: Any, path: str, field: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """One number an event, stored plainly or as a list of one."""
    import pyarrow as pa

    if array.null_count:
        raise InputError(path, field, "missing values (null)", "one number an event")
    if isinstance(array, (pa.ListArray, pa.LargeListArray)):
        if array.values.null_count:
            raise InputError(path, field, "missing values (null)", "one number an event")
        values = array.values.to_numpy(zero_copy_only=False)
        return one_per_event(Jagged.from_slice(array.offsets.to_numpy(), values), where=path, field=field)
    values = array.to_numpy(zero_copy_only=False)
    return values, np.ones(len(values), dtype=bool)
