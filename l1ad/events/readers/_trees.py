"""Reading branches of ROOT trees (TTree or RNTuple) as plain arrays, with one line for whatever goes wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.events.readers._files import root_errors
from l1ad.events.readers._jagged import Jagged, same_lengths


def unpackers(stack: ExitStack) -> Any:
    """Two threads that unpack baskets at the same time (zlib lets go of the interpreter), ended by `stack`."""
    import uproot

    executor = uproot.ThreadPoolExecutor(2)
    stack.callback(executor.shutdown)
    return executor


@contextmanager
def _quick_zlib() -> Iterator[None]:
    """Let uproot unpack zlib with ISA-L, which takes half the time, and only for as long as we read.

    The documented switch, ``uproot.ZLIB.library``, reaches the compression only (seen in 5.7.7): what unpacks looks at
    the class below it. Without that class uproot reads as it always does.
    """
    from uproot import compression

    switch = getattr(compression, "_DecompressZLIB", None)
    before = getattr(switch, "library", None)
    if switch is None or before is None:
        yield
        return
    switch.library = "isal"
    try:
        yield
    finally:
        switch.library = before


class Tree:
    """A tree of an open ROOT file, with branches found by their last name.

    A branch ``jetIEt`` may stand alone or below another (``L1Upgrade/jetIEt``, ``L1Upgrade./jetIEt``).

    Attributes
    ----------
    where : file and tree, for messages.
    workers : the executor that unpacks baskets, None for none.
    n_events : number of entries.
    """

    def __init__(self, tree: Any, path: str, name: str, workers: Any = None) -> None:
        self._workers = workers
        self.where = f"{path}: {name}"
        self._tree = tree
        with root_errors(path, name):
            self.n_events = int(tree.num_entries)
            keys = list(tree.keys())
        known = set(keys)
        self._keys: dict[str, str] = {}
        for key in keys:
            if key.startswith("n") and key[1:] in known:
                # The lengths of another branch, not a branch below `n...`.
                continue
            self._keys.setdefault(key.replace(".", "/").split("/")[-1], key)
            self._keys[key] = key

    def __contains__(self, name: object) -> bool:
        return name in self._keys

    @property
    def names(self) -> list[str]:
        """All branches, by their last name."""
        return list(self._keys)

    def require(self, names: Sequence[str]) -> None:
        """Check that branches exist.

        Raises
        ------
        InputError
            Naming the first that does not.
        """
        for name in names:
            if name not in self._keys:
                found = ", ".join(sorted(self._keys)[:4]) or "no branches"
                raise InputError(self.where, f"branch {name}", f"{found}, ...", "a branch of that name")

    def typename(self, name: str) -> str:
        """C++ type of a branch."""
        return str(self._tree[self._keys[name]].typename)

    def edges(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """Entries at which the baskets (or clusters) of all of some branches begin, ascending, with the end."""
        result: set[int] | None = None
        for name in names:
            branch = self._tree[self._keys[name]]
            offsets = getattr(branch, "entry_offsets", None)
            if offsets is None:
                return np.array([0, self.n_events])
            result = set(offsets) if result is None else result & set(offsets)
        return np.array(sorted((result or set()) | {0, self.n_events}), dtype=np.int64)

    def _array(self, name: str, start: int, stop: int) -> Any:
        branch = self._tree[self._keys[name]]
        with _quick_zlib():
            return branch.array(entry_start=start, entry_stop=stop, library="ak", decompression_executor=self._workers)

    def flat(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """One number an event.

        Raises
        ------
        InputError
            If the branch is absent, damaged or not of that form.
        """
        import awkward as ak

        self.require([name])
        with root_errors(self.where, name):
            array = self._array(name, start, stop)
            layout = ak.to_layout(array)
        if not isinstance(layout, ak.contents.NumpyArray):
            raise InputError(self.where, f"branch {name}", str(array.type), "one number an event")
        return np.asarray(layout.data)

    def jagged(self, name: str, start: int, stop: int) -> Jagged:
        """A list of numbers an event.

        Raises
        ------
        InputError
            If the branch is absent, damaged or not of that form.
        """
        import awkward as ak

        self.require([name])
        with root_errors(self.where, name):
            array = self._array(name, start, stop)
            layout = ak.to_layout(array)
            if isinstance(layout, (ak.contents.ListArray, ak.contents.RegularArray)):
                layout = layout.to_ListOffsetArray64(True)
        if not (isinstance(layout, ak.contents.ListOffsetArray) and isinstance(layout.content, ak.contents.NumpyArray)):
            raise InputError(self.where, f"branch {name}", str(array.type), "a list of numbers an event")
        return Jagged.from_slice(np.asarray(layout.offsets.data), np.asarray(layout.content.data))

    def aliases(self) -> dict[str, str]:
        """Names that were given to expressions when the tree was written; empty if none were."""
        try:
            members = self._tree.member("fAliases", none_if_missing=True)
        except (KeyError, AttributeError):
            # An RNTuple has no aliases.
            return {}
        if members is None:
            return {}
        return {str(item.member("fName")): str(item.member("fTitle")) for item in members}


def _cut(lists: Jagged, start: int, stop: int) -> Jagged:
    if start == 0 and stop == len(lists.offsets) - 1:
        return lists
    return Jagged.from_slice(lists.offsets[start : stop + 1], lists.values)


class Window:
    """Branches read ahead up to a basket's end, so that no basket is unpacked for two pieces.

    Parameters
    ----------
    edges : entries at which baskets begin, as `Tree.edges`.
    size : events a piece; at most `AHEAD` pieces are read at once.
    """

    AHEAD = 4

    def __init__(self, edges: npt.NDArray[np.int64], size: int) -> None:
        self._edges, self._size = edges, size
        self._lists: dict[tuple[int, str], tuple[int, int, Jagged | None]] = {}
        self._flat: dict[tuple[int, str], tuple[int, int, npt.NDArray[Any] | None]] = {}

    def _end(self, stop: int, start: int) -> int:
        """Where to stop reading: the next basket's begin after what is asked for, if that is near."""
        inside = self._edges[(self._edges >= stop) & (self._edges <= start + self.AHEAD * self._size)]
        return int(inside[0]) if len(inside) else stop

    def jagged(self, tree: Tree, name: str, start: int, stop: int) -> Jagged:
        """As `Tree.jagged`."""
        key = (id(tree), name)
        first, last, lists = self._lists.get(key, (0, 0, None))
        if lists is None or not first <= start <= last or stop > last:
            end = self._end(stop, start)
            if lists is None or not first <= start < last:
                first, lists = start, tree.jagged(name, start, end)
            else:
                # The rest of what was read for the last piece, and what follows it.
                rest = _cut(lists, start - first, last - first)
                more = tree.jagged(name, last, end)
                offsets = np.concatenate((rest.offsets, more.offsets[1:] + rest.offsets[-1]))
                first, lists = start, Jagged(offsets, np.concatenate((rest.values, more.values)))
            last = end
            self._lists[key] = (first, last, lists)
        return _cut(lists, start - first, stop - first)

    def flat(self, tree: Tree, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """As `Tree.flat`."""
        key = (id(tree), name)
        first, last, values = self._flat.get(key, (0, 0, None))
        if values is None or not first <= start <= last or stop > last:
            end = self._end(stop, start)
            if values is None or not first <= start < last:
                first, values = start, tree.flat(name, start, end)
            else:
                values = np.concatenate((values[start - first :], tree.flat(name, last, end)))
                first = start
            last = end
            self._flat[key] = (first, last, values)
        return values[start - first : stop - first]

    def lists(self, tree: Tree, names: Sequence[str], start: int, stop: int) -> list[Jagged]:
        """As `Tree.lists`."""
        found = [self.jagged(tree, name, start, stop) for name in names]
        same_lengths(found, names, tree.where)
        return found
