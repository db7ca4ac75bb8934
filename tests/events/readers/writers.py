"""Files in the real schema of each format, made of one random set of objects, for tests and for the benchmark.

`toy_objects` is the truth in lists of any length; each `write_*` puts it into one format. Not a test itself: loaded
with `runpy.run_path`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import awkward as ak
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import uproot

SEEDS = ("L1_SingleMu22", "L1_SingleJet180", "L1_ETMHF90", "L1_HTT360er", "L1_DoubleEG_25_12_er2p5")


@dataclass
class Toy:
    """Objects of N crossings in hardware integers: lists by collection, sums and event numbers."""

    lists: dict[str, dict[str, ak.Array]]
    sums: dict[str, np.ndarray]
    event: dict[str, np.ndarray]
    seeds: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.event["run"])


def toy_objects(
    n: int,
    seed: int = 1,
    *,
    muons_in_order: bool = False,
    n_seeds: int = 5,
    means: tuple[float, float, float] = (4, 1, 6),
) -> Toy:
    """Random objects within capacity (12 e/gamma, 8 muons, 12 jets); calorimeter objects fall in pt, muons need not."""
    rng = np.random.default_rng(seed)
    lists = {}
    for name, capacity, mean, top, eta, period in (
        ("eg", 12, means[0], 511, 127, 144),
        ("muon", 8, means[1], 511, 255, 576),
        ("jet", 12, means[2], 2047, 127, 144),
    ):
        counts = np.minimum(rng.poisson(mean, n), capacity)
        total = int(counts.sum())
        pt = np.minimum(1 + rng.geometric(0.03 if top > 1000 else 0.08, total), top)
        array = ak.unflatten(pt, counts)
        if name != "muon" or muons_in_order:
            array = array[ak.argsort(array, ascending=False, stable=True)]
        lists[name] = {
            "et": array,
            "eta": ak.unflatten(rng.integers(-eta, eta + 1, total), counts),
            "phi": ak.unflatten(rng.integers(0, period, total), counts),
        }
    sums = {name: rng.integers(0, 4095, n) for name in ("et", "et_em", "ht", "met", "mht", "met_hf", "mht_hf")}
    sums |= {f"{name}_phi": rng.integers(0, 144, n) for name in ("met", "mht", "met_hf", "mht_hf")}
    sums["tower_count"] = rng.integers(0, 8191, n)
    event = {
        "run": np.full(n, 398183),
        "lumi": 1 + np.arange(n) // 100,
        "bx": rng.integers(1, 3565, n),
        "orbit": np.sort(rng.integers(0, 1 << 28, n)),
        "event": np.arange(n) + (1 << 33),
        "n_pv": rng.normal(55, 4, n).astype(np.float32),
    }
    names = [*SEEDS, *(f"L1_Extra{i}" for i in range(n_seeds - len(SEEDS)))][:n_seeds]
    seeds = {name: rng.random(n) < 0.02 for name in names}
    return Toy(lists, sums, event, seeds)


def dense(toy: Toy, *, muon_offset: int = 1) -> np.ndarray:
    """What a reader must give, (N, 19, 3), by a plain loop over events: the slow reference."""
    hw = np.zeros((len(toy), 19, 3), dtype=np.int16)
    hw[:, 0, 0], hw[:, 0, 2] = toy.sums["met"], toy.sums["met_phi"]
    for name, first, slots in (("eg", 1, 4), ("muon", 5, 4), ("jet", 9, 10)):
        columns = {key: ak.to_list(values) for key, values in toy.lists[name].items()}
        for i in range(len(toy)):
            objects = sorted(zip(columns["et"][i], columns["eta"][i], columns["phi"][i]), key=lambda entry: -entry[0])
            for k, (et, eta, phi) in enumerate(objects[:slots]):
                code = et - muon_offset if name == "muon" and et < 511 else et
                hw[i, first + k] = code, eta, phi
    return hw


# ---------------------------------------------------------------------- CMS open data

OPEN_SUMS = {
    "ET_Et": "et",
    "ET_ETTEM": "et_em",
    "HT_Et": "ht",
    "HT_tower_count": "tower_count",
    "MET_Et": "met",
    "MET_phi": "met_phi",
    "MHT_Et": "mht",
    "MHT_phi": "mht_phi",
    "FET_Et": "met_hf",
    "FET_phi": "met_hf_phi",
    "FHT_Et": "mht_hf",
    "FHT_phi": "mht_hf_phi",
}


def _lists(array: ak.Array, kind: pa.DataType) -> pa.Array:
    flat = pa.array(ak.to_numpy(ak.flatten(array)), type=kind)
    offsets = np.concatenate(([0], np.cumsum(ak.to_numpy(ak.num(array))))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), flat)


def _ones(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.arange(len(values) + 1, dtype=np.int32)), pa.array(values, type=kind))


def opendata_columns(toy: Toy) -> dict[str, pa.Array]:
    """Columns of the flat arrangement, without the seeds."""
    columns: dict[str, pa.Array] = {}
    short = pa.int16()
    for folder, name, branch, at_vertex in (
        ("egammas", "eg", "eg", ""),
        ("muons", "muon", "muon", "AtVtx"),
        ("jets", "jet", "jet", ""),
        ("taus", "eg", "tau", ""),
    ):
        columns[f"{folder}_{branch}IEt"] = _lists(toy.lists[name]["et"], short)
        columns[f"{folder}_{branch}IEta{at_vertex}"] = _lists(toy.lists[name]["eta"], short)
        columns[f"{folder}_{branch}IPhi{at_vertex}"] = _lists(toy.lists[name]["phi"], short)
    columns["muons_muonQual"] = _lists(ak.full_like(toy.lists["muon"]["et"], 12), short)
    columns["muons_muonChg"] = _lists(ak.full_like(toy.lists["muon"]["et"], -1), short)
    for theirs, ours in OPEN_SUMS.items():
        columns[theirs] = _ones(toy.sums[ours], short)
    for theirs, ours, kind in (
        ("run", "run", pa.uint32()),
        ("lumi", "lumi", pa.uint32()),
        ("bx", "bx", pa.uint32()),
        ("orbit", "orbit", pa.uint64()),
        ("event", "event", pa.uint64()),
        ("nPV_True", "n_pv", pa.float32()),
    ):
        columns[theirs] = pa.array(toy.event[ours], type=kind)
    return columns


def seed_columns(toy: Toy, *, listed: bool = False) -> dict[str, pa.Array]:
    """One boolean column a seed, and their OR."""
    everything = {**toy.seeds, "L1bit": np.any(list(toy.seeds.values()), axis=0)}
    return {name: _ones(bits, pa.bool_()) if listed else pa.array(bits) for name, bits in everything.items()}


def write_opendata(
    path: Path, toy: Toy, *, split: list[str] | None = None, seeds: bool = True, rows: int = 1000
) -> Path:
    """One file with every column."""
    columns = opendata_columns(toy)
    if seeds:
        columns |= seed_columns(toy)
    if split is not None:
        columns["split"] = pa.array(split)
    pq.write_table(pa.table(columns), path, row_group_size=rows)
    return path


def write_opendata_mirror(folder: Path, toy: Toy, *, split: str = "train") -> Path:
    """The Hugging Face arrangement: a file and its seeds in the folder beside it, cut into other row groups."""
    (folder / "seeds").mkdir(parents=True)
    name = f"{split}-00000-of-00001.parquet"
    pq.write_table(pa.table(opendata_columns(toy)), folder / name, row_group_size=700)
    pq.write_table(pa.table(seed_columns(toy)), folder / "seeds" / name, row_group_size=450)
    return folder / name


def write_opendata_record(folder: Path, toy: Toy, *, shards: int = 2) -> Path:
    """The Zenodo arrangement: one folder an object, shards of the same names."""
    table = pa.table(opendata_columns(toy))
    seeds = pa.table(seed_columns(toy, listed=True))
    edges = np.linspace(0, len(toy), shards + 1).astype(int)
    prefixes = ("jets", "muons", "egammas", "taus", "ET", "HT", "MET", "MHT", "FET", "FHT")
    groups = {prefix: [name for name in table.column_names if name.startswith(f"{prefix}_")] for prefix in prefixes}
    groups["event_info"] = [
        name for name in table.column_names if not name.startswith(tuple(f"{p}_" for p in prefixes))
    ]
    for i, (start, stop) in enumerate(itertools.pairwise(edges)):
        for prefix, names in groups.items():
            (folder / prefix).mkdir(parents=True, exist_ok=True)
            part = table.select(names).slice(start, stop - start)
            part = part.rename_columns([name.removeprefix(f"{prefix}_") for name in names])
            pq.write_table(part, folder / prefix / f"shard_{i}.parquet")
        (folder / "seeds").mkdir(exist_ok=True)
        pq.write_table(seeds.slice(start, stop - start), folder / "seeds" / f"shard_{i}.parquet")
    return folder


# ---------------------------------------------------------------------- L1Ntuple

SUM_CODES = {"et": 0, "ht": 1, "met": 2, "mht": 3, "met_hf": 8, "et_em": 16, "mht_hf": 20, "tower_count": 21}


def ntuple_arrays(toy: Toy, *, seed: int = 2, other_crossings: bool = True) -> dict[str, ak.Array]:
    """Branches of an L1UpgradeTree: crossing 0 holds `toy`, crossings -2 to 2 hold other objects around it."""
    rng = np.random.default_rng(seed)
    branches: dict[str, ak.Array] = {}
    for name in ("eg", "muon", "jet"):
        parts = dict(toy.lists[name])
        crossing = ak.zeros_like(parts["et"])
        if other_crossings:
            counts = rng.poisson(1.0, len(toy))
            total = int(counts.sum())
            noise = {
                "et": ak.unflatten(rng.integers(1, 500, total), counts),
                "eta": ak.unflatten(rng.integers(-100, 100, total), counts),
                "phi": ak.unflatten(rng.integers(0, 144, total), counts),
            }
            where = ak.unflatten(rng.choice([-2, -1, 1, 2], total), counts)
            parts = {key: ak.concatenate([noise[key], values], axis=1) for key, values in parts.items()}
            crossing = ak.concatenate([where, crossing], axis=1)
        suffix = "AtVtx" if name == "muon" else ""
        branches[f"{name}IEt"] = parts["et"]
        branches[f"{name}IEta{suffix}"] = parts["eta"]
        branches[f"{name}IPhi{suffix}"] = parts["phi"]
        branches[f"{name}Bx"] = crossing
        if name == "muon":
            # At the stations: another place, which a reader must not take.
            branches["muonIEta"] = ak.zeros_like(parts["eta"]) + 99
            branches["muonIPhi"] = ak.zeros_like(parts["phi"]) + 99
    kinds, energies, angles, crossings = [], [], [], []
    for crossing_number in (-1, 0, 1) if other_crossings else (0,):
        for name, code in SUM_CODES.items():
            kinds.append(np.full(len(toy), code))
            here = crossing_number == 0
            energies.append(toy.sums[name] if here else rng.integers(0, 4095, len(toy)))
            angle = toy.sums.get(f"{name}_phi", np.zeros(len(toy), dtype=np.int64))
            angles.append(angle if here else rng.integers(0, 144, len(toy)))
            crossings.append(np.full(len(toy), crossing_number))
    for branch, values in (("sumType", kinds), ("sumIEt", energies), ("sumIPhi", angles)):
        branches[branch] = ak.from_regular(np.stack(values, axis=1))
    branches = {name: ak.values_astype(values, np.int16) for name, values in branches.items()}
    # The real branch is a vector of floats.
    branches["sumBx"] = ak.values_astype(ak.from_regular(np.stack(crossings, axis=1)), np.float32)
    return branches


#: Entries a basket: real files have some thousand.
BASKET = 20000


def _tree(file: uproot.WritableDirectory, name: str, branches: dict[str, object], prefix: str = "") -> None:
    branches = {prefix + key: values for key, values in branches.items()}
    types = {
        key: str(ak.type(values).content) if isinstance(values, ak.Array) else values.dtype
        for key, values in branches.items()
    }
    tree = file.mktree(name, types)
    n = len(next(iter(branches.values())))
    for start in range(0, max(n, 1), BASKET):
        tree.extend({key: values[start : start + BASKET] for key, values in branches.items()})


def write_l1ntuple(
    path: Path,
    toy: Toy,
    *,
    kinds: tuple[str, ...] = ("unpacked",),
    decisions: bool = True,
    event: bool = True,
    prefix: str = "",
    arrays: dict[str, ak.Array] | None = None,
    n_bits: int = 512,
) -> Path:
    """An L1Ntuple with object, event and uGT trees; ``prefix="L1Upgrade/"`` nests the branch names."""
    objects = ntuple_arrays(toy) if arrays is None else arrays
    with uproot.recreate(path) as file:
        for kind in kinds:
            part = "" if kind == "unpacked" else "Emu"
            shown = objects
            if kind == "emulated" and "unpacked" in kinds:
                shown = {**objects, "jetIEta": ak.zeros_like(objects["jetIEta"]) + 7}
            _tree(file, f"l1Upgrade{part}Tree/L1UpgradeTree", shown, prefix)
            if decisions:
                table = np.zeros((len(toy), n_bits), dtype=bool)
                for i, bits in enumerate(toy.seeds.values()):
                    table[:, 2 * i + 1] = bits
                listed = ak.from_regular(table)
                _tree(file, f"l1uGT{part}Tree/L1uGTTree", {"m_algoDecisionFinal": listed})
        if event:
            numbers = {
                "run": toy.event["run"].astype(np.uint32),
                "lumi": toy.event["lumi"].astype(np.uint32),
                "bx": toy.event["bx"].astype(np.uint32),
                "orbit": toy.event["orbit"].astype(np.uint64),
                "event": toy.event["event"].astype(np.uint64),
                "nPV_True": toy.event["n_pv"].astype(np.float32),
            }
            _tree(file, "l1EventTree/L1EventTree", numbers)
    return path


def seed_bits(toy: Toy) -> dict[str, int]:
    """Bit of each seed in `write_l1ntuple`."""
    return {name: 2 * i + 1 for i, name in enumerate(toy.seeds)}


# ---------------------------------------------------------------------- NanoAOD


def write_nano(path: Path, toy: Toy, *, hardware: bool = False, objects: bool = True, sums: bool = True) -> Path:
    """NanoAOD with L1 objects in GeV, pseudorapidity and radians (-pi, pi], stored with 12 bits of mantissa."""

    def angle(codes: ak.Array, period: int) -> ak.Array:
        radians = codes * (2 * np.pi / period)
        return ak.where(radians > np.pi, radians - 2 * np.pi, radians)

    def stored(values: ak.Array) -> ak.Array:
        mantissa, exponent = np.frexp(ak.to_numpy(ak.flatten(values)).astype(np.float64))
        rounded = np.ldexp(np.rint(mantissa * 2**12) / 2**12, exponent).astype(np.float32)
        return ak.unflatten(rounded, ak.num(values))

    branches: dict[str, object] = {}
    if objects:
        arrays = ntuple_arrays(toy)
        for nano, name, suffix, eta_step, period in (
            ("L1EG", "eg", "", 0.0435, 144),
            ("L1Mu", "muon", "AtVtx", 0.010875, 576),
            ("L1Jet", "jet", "", 0.0435, 144),
        ):
            et, eta, phi = (arrays[f"{name}{part}"] for part in ("IEt", f"IEta{suffix}", f"IPhi{suffix}"))
            offset = 1 if name == "muon" else 0
            branches[f"{nano}_pt"] = stored((ak.values_astype(et, np.int64) - offset) * 0.5)
            branches[f"{nano}_eta{suffix}"] = stored(eta * eta_step)
            branches[f"{nano}_phi{suffix}"] = stored(angle(ak.values_astype(phi, np.int64), period))
            if suffix:
                branches[f"{nano}_eta"] = ak.zeros_like(branches[f"{nano}_pt"])
                branches[f"{nano}_phi"] = ak.zeros_like(branches[f"{nano}_pt"])
            branches[f"{nano}_bx"] = arrays[f"{name}Bx"]
            if hardware:
                branches |= {f"{nano}_hwPt": et, f"{nano}_hwEta{suffix}": eta, f"{nano}_hwPhi{suffix}": phi}
    if sums:
        arrays = ntuple_arrays(toy)
        branches["L1EtSum_pt"] = stored(ak.values_astype(arrays["sumIEt"], np.int64) * 0.5)
        branches["L1EtSum_phi"] = stored(angle(ak.values_astype(arrays["sumIPhi"], np.int64), 144))
        branches["L1EtSum_etSumType"] = ak.values_astype(arrays["sumType"], np.int32)
        branches["L1EtSum_bx"] = ak.values_astype(arrays["sumBx"], np.int16)
    branches |= dict(toy.seeds)
    branches |= {
        "run": toy.event["run"].astype(np.uint32),
        "luminosityBlock": toy.event["lumi"].astype(np.uint32),
        "event": toy.event["event"].astype(np.uint64),
        "bunchCrossing": toy.event["bx"].astype(np.uint32),
        "orbitNumber": toy.event["orbit"].astype(np.uint32),
        "PV_npvs": np.full(len(toy), 40, dtype=np.uint8),
        "Pileup_nTrueInt": toy.event["n_pv"].astype(np.float32),
    }
    with uproot.recreate(path) as file:
        _tree(file, "Events", branches)
    return path


# ---------------------------------------------------------------------- ADC2021


def write_adc(path: Path, floats: np.ndarray) -> Path:
    """`Particles` (N, 19, 4) and the names that the published files carry."""
    with h5py.File(path, "w") as file:
        file["Particles"] = floats
        file["Particles_Names"] = np.array([b"Pt", b"Eta", b"Phi", b"Class"])
        file["Particles_Classes"] = np.array(
            [b"MET_class_1", b"Four_Ele_class_2", b"Four_Mu_class_3", b"Ten_Jet_class_4"]
        )
    return path


def adc_floats(n: int, seed: int = 3) -> np.ndarray:
    """Random events in the published order, (N, 19, 4) float32, padded with zeros."""
    rng = np.random.default_rng(seed)
    floats = np.zeros((n, 19, 4), dtype=np.float32)
    floats[:, 0] = np.stack([rng.exponential(20, n), np.zeros(n), rng.uniform(-np.pi, np.pi, n), np.ones(n)], axis=1)
    for first, slots, reach, kind in ((1, 4, 3.0, 2), (5, 4, 2.1, 3), (9, 10, 4.0, 4)):
        counts = np.minimum(rng.poisson(2, n), slots)
        there = np.arange(slots) < counts[:, None]
        pt = -np.sort(-rng.exponential(30, (n, slots)) * there, axis=1)
        floats[:, first : first + slots, 0] = pt
        floats[:, first : first + slots, 1] = rng.uniform(-reach, reach, (n, slots)) * there
        floats[:, first : first + slots, 2] = rng.uniform(-np.pi, np.pi, (n, slots)) * there
        floats[:, first : first + slots, 3] = kind * there
    return floats
