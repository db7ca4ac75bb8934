"""A sample in pieces, one file each: made by any number of workers, and gone on with where it stopped."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from l1ad.errors import InputError, require
from l1ad.io import make_folder
from l1ad.search.jets import concatenate
from l1ad.search.readers import read
from l1ad.search.simulate.generate import generate
from l1ad.search.simulate.recipe import PARTONS, Partons, Recipe, Sample


def simulate(
    recipe: Recipe,
    n: int,
    *,
    seed: int,
    workers: int = 1,
    folder: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sample:
    """`n` selected events.

    Parameters
    ----------
    seed : root seed; the recipe is mixed in.
    workers : processes to use; the result does not depend on it.
    folder : for the pieces, one file each; the ones that are there from the same recipe and seed are not made again.
        A temporary folder if not given.
    progress : called with the number of finished and of all pieces.

    Raises
    ------
    MissingToolError
        Without PYTHIA or fastjet.
    InputError
        If nothing generated passes the selection, or the folder holds pieces of another recipe.
    """
    import tempfile

    if n < 1:
        raise InputError("simulation", "events", n, "at least 1")
    for module, extra in (("pythia8mc", "simulate"), ("numba", "simulate"), ("fastjet", "jets"), ("vector", "jets")):
        require(module, extra)
    if folder is None:
        with tempfile.TemporaryDirectory() as own:
            return simulate(recipe, n, seed=seed, workers=workers, folder=own, progress=progress)
    pieces = _plan(recipe, n, seed, Path(folder))
    make_pieces(pieces, workers=workers, progress=progress)
    return gather(pieces)


@dataclass(frozen=True)
class Piece:
    """A part of a sample: `n` selected events from the child `index` of a seed, in the file `path`."""

    recipe: Recipe
    n: int
    seed: int
    index: int
    path: Path

    @property
    def key(self) -> str:
        """What the file must have been made from to be this piece, its length apart."""
        return hashlib.sha256(f"{self.recipe.to_json()} {self.seed} {self.index}".encode()).hexdigest()

    def done(self) -> bool:
        """Whether the file is there, with as many events as wanted.

        Raises
        ------
        InputError
            If it is there but of another recipe or seed, or cannot be read.
        """
        if not self.path.is_file():
            return False
        with self._opened() as file:
            if file.attrs.get("piece") != self.key:
                expected = "a piece of this sample; use an empty folder for another one"
                raise InputError(str(self.path), "piece", "another recipe or seed", expected)
            return len(file["partons/m_hat"]) == self.n

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        """The file, to be read."""
        import h5py

        try:
            with h5py.File(self.path, "r") as file:
                yield file
        except (OSError, KeyError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error).strip("\"'")
            expected = "a piece of a simulated sample; without the file it is made again"
            raise InputError(str(self.path), "piece", reason.splitlines()[0], expected) from error

    def make(self) -> None:
        """Generate and write; the file has its name only when all of it is there."""
        sample = generate(self.recipe, self.n, np.random.SeedSequence(self._entropy, spawn_key=(self.index,)))
        attributes: dict[str, str | float] = {"piece": self.key, "n_tried": sample.n_tried, "sigma_fb": sample.sigma_fb}
        partons = {f"partons/{name}": values for name, values in vars(sample.partons).items()}
        sample.dijets.write(self.path, attributes=attributes, more=partons)

    @property
    def _entropy(self) -> list[int]:
        # The recipe is mixed in: samples of different recipes are independent under one seed.
        return [self.seed, int(hashlib.sha256(self.recipe.to_json().encode()).hexdigest()[:16], 16)]

    def load(self) -> Sample:
        """Read it back."""
        with self._opened() as file:
            partons = Partons(**{name: file[f"partons/{name}"][:] for name in PARTONS})
            n_tried, sigma = int(file.attrs["n_tried"]), float(file.attrs["sigma_fb"])
        return Sample(read(self.path), partons, n_tried, sigma)


def _plan(recipe: Recipe, n: int, seed: int, folder: Path) -> list[Piece]:
    block = recipe.process.block
    sizes = [block] * (n // block) + ([n % block] if n % block else [])
    return [Piece(recipe, size, seed, i, folder / f"piece_{i:05d}.h5") for i, size in enumerate(sizes)]


def _make(piece: Piece) -> None:
    piece.make()


def make_pieces(
    pieces: Sequence[Piece], *, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> None:
    """Make the pieces whose files are not there yet."""
    from l1ad.rates.pool import process_pool

    todo = [piece for piece in pieces if not piece.done()]
    finished = len(pieces) - len(todo)
    for piece in todo[:1]:
        make_folder(piece.path.parent)
    with process_pool(min(workers, max(len(todo), 1))) as pool:
        if pool is None:
            for piece in todo:
                piece.make()
                finished += 1
                if progress is not None:
                    progress(finished, len(pieces))
            return
        futures = [pool.submit(_make, piece) for piece in todo]
        try:
            for future in as_completed(futures):
                future.result()
                finished += 1
                if progress is not None:
                    progress(finished, len(pieces))
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def gather(pieces: Sequence[Piece]) -> Sample:
    """The sample that pieces make up, in their order."""
    parts = [piece.load() for piece in pieces]
    tried = sum(p.n_tried for p in parts)
    return Sample(
        dijets=concatenate([p.dijets for p in parts]),
        partons=Partons(**{name: np.concatenate([getattr(p.partons, name) for p in parts]) for name in PARTONS}),
        n_tried=tried,
        # Weighted by the effort: PYTHIA's own estimate of each piece gets better with the events that it tried.
        sigma_fb=sum(p.sigma_fb * p.n_tried for p in parts) / tried,
    )
