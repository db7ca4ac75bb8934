"""Make the sample that ships in ``l1ad/data``: natural and weighted zero bias, and the signals.

    python scripts/make_sample.py --library FOLDER [--out l1ad/data] [--workers 2]

Libraries that FOLDER lacks are generated first, with the seed below: about an hour on one core. The same seeds give the
same files. Natural zero bias is for training, the weighted one for thresholds and rates: they share no crossing.
``tt_hadronic_mu46`` is there for ``l1ad data realism`` alone. The layouts of other triggers get a few thousand
crossings, enough to try their configurations; more are made with ``l1ad data simulate --layout``.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from l1ad.events.bundled import zero_bias_stem
from l1ad.events.simulate.generate import generate_to_file
from l1ad.events.simulate.mixing import MU_REFERENCE
from l1ad.events.simulate.processes import BACKGROUND, SIGNALS
from l1ad.events.simulate.produce import LIBRARY_SEED, library_path, simulate
from l1ad.events.simulate.realism import OFFICIAL_MU, OFFICIAL_MU_SPREAD

SEED = 13600
N_SOFT = 200_000
N_NATURAL = 120_000
N_WEIGHTED = 110_000
N_SIGNAL = 2_500
N_SMALL_POOL = 50_000  # pile-up collisions that suffice for so few events
#: Crossings in the other layouts, natural and weighted: some 0.7 MB for each.
N_LAYOUT = {"cms_calo_regions": (3_600, 2_400), "atlas_l1topo": (11_000, 6_500)}
N_OFFICIAL = 5_000  # top pairs at the pile-up of the official events, for the realism table


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, required=True, help="folder of generator libraries")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "l1ad" / "data")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="names of the files to make, without .h5")
    options = parser.parse_args()

    for name, process in {**BACKGROUND, **SIGNALS}.items():
        path = library_path(options.library, name)
        if not path.exists():
            sys.stderr.write(f"generating {name}\n")
            n = N_SOFT if name == "soft" else None
            generate_to_file(path, process, n, seed=LIBRARY_SEED, workers=options.workers)

    # stem, process, events, stratified, layout, pile-up and its spread
    usual = ("cms_ugt", MU_REFERENCE, 6.0)
    jobs = [
        ("zero_bias", "zero_bias", N_NATURAL, False, *usual),
        ("zero_bias_weighted", "zero_bias", N_WEIGHTED, True, *usual),
        ("tt_hadronic_mu46", "tt_hadronic", N_OFFICIAL, False, "cms_ugt", OFFICIAL_MU, OFFICIAL_MU_SPREAD),
    ]
    jobs += [(f"signal_{name}", name, N_SIGNAL, False, *usual) for name in SIGNALS]
    for layout, numbers in N_LAYOUT.items():
        for n, weighted in zip(numbers, (False, True), strict=True):
            stem = zero_bias_stem(layout, weighted=weighted)
            jobs.append((stem, "zero_bias", n, weighted, layout, *usual[1:]))
    total = 0
    for stem, process, n, stratified, layout, mu, mu_spread in jobs:
        if options.only and stem not in options.only:
            continue
        start = time.perf_counter()
        events = simulate(
            process,
            n,
            seed=SEED,
            layout=layout,
            stratified=stratified,
            mu=mu,
            mu_spread=mu_spread,
            library=options.library,
            workers=options.workers,
            max_collisions=None if n >= N_WEIGHTED else N_SMALL_POOL,
        )
        if layout != "cms_ugt":
            events = replace(events, columns={k: v for k, v in events.columns.items() if k in ("n_pv", "weight")})
        path = options.out / f"{stem}.h5"
        events.write(path, compression="gzip")
        size = path.stat().st_size
        total += size
        sys.stdout.write(
            f"{stem:28s} {len(events):7d} events {size / 1e6:6.2f} MB {time.perf_counter() - start:6.1f} s\n"
        )
        sys.stdout.flush()
    sys.stdout.write(f"{'total':28s} {'':14s} {total / 1e6:6.2f} MB\n")


if __name__ == "__main__":
    main()
