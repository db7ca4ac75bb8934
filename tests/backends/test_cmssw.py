"""The CMSSW emulator: loaded as CMSSW loads it, against the golden evaluation and the deployed model's answers."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import numpy as np
import pytest
import yaml

from l1ad.backends import cmssw, native, project
from l1ad.errors import InputError, TriggerError
from l1ad.events.layout import get_layout
from l1ad.trigger.build import NodeOps, ProgramBuilder
from l1ad.trigger.fixed import FixedType
from l1ad.trigger.program import Trigger


@pytest.fixture(scope="module")
def pair(small, tmp_path_factory):
    """Two versions of one model: same shape, other weights; built."""
    folder = tmp_path_factory.mktemp("cmssw")
    made = [cmssw.convert(small(seed), None, folder / f"v{seed}", version=f"v{seed}") for seed in (1, 2)]
    for emulator in made:
        emulator.build()
    return made


@pytest.fixture(scope="module")
def events(pair):
    return project.golden_vectors(pair[0].trigger.program, 10_000, seed=5)


def test_scores_and_latents_of_10_000_events(pair, events) -> None:
    for emulator in pair:
        expected = emulator.trigger.program.evaluate(events)
        assert (emulator.score(events) == expected["score"][:, 0]).all()
        trace = emulator.trace(events)
        assert (trace["score"] == expected["score"]).all()
        assert (trace["result"] == expected["result"]).all()
    assert (pair[0].score(events) != pair[1].score(events)).mean() > 0.5


def test_the_half_gev_is_kept(pair, events) -> None:
    # cms-sw/cmssw#49753: hwPt()/2 as an integer division. Here: every transverse momentum odd.
    odd = events.copy()
    odd[:, ::3] |= 1
    truncated = odd.copy()
    truncated[:, ::3] &= ~1
    trigger = pair[0].trigger
    differ = trigger.score(odd) != trigger.score(truncated)
    assert differ.sum() > 100
    assert (pair[0].score(odd) == trigger.score(odd)).all()


@pytest.mark.parametrize("global_symbols", [False, True])
def test_two_versions_in_one_process_answer_for_themselves(pair, events, global_symbols) -> None:
    # cms-sw/cmssw#44435: both libraries exported the same symbols, and one answered for the other.
    codes = cmssw.score_together(pair, events[:2000], global_symbols=global_symbols)
    columns = codes.shape[1] // 2
    for i, emulator in enumerate(pair):
        assert (codes[:, i * columns] == emulator.trigger.score(events[:2000])).all()


def test_nothing_but_the_factories_is_exported(pair) -> None:
    for emulator in pair:
        text = subprocess.run(
            ["nm", "-D", "--defined-only", emulator.build()], capture_output=True, text=True, check=True
        )
        assert {line.split()[-1] for line in text.stdout.splitlines()} == {"create_model", "destroy_model"}


def test_each_model_has_a_namespace_of_its_own(pair) -> None:
    headers = [(emulator.folder / "program.h").read_text() for emulator in pair]
    spaces = [f"namespace {e.model}_{e.trigger_hash[:12]} {{" for e in pair]
    assert [space in header for space, header in zip(spaces, headers)] == [True, True]
    assert spaces[0] not in headers[1]


def test_a_wrong_payload_is_refused_by_the_model(pair, tmp_path) -> None:
    # std::any compares types to the letter: an array of another word must not be read as one of ours.
    (tmp_path / "main.cpp").write_text(
        """
        #include "emulator.h"
        #include "ap_fixed.h"
        #include <dlfcn.h>
        #include <array>
        #include <utility>
        template <class T> int refused(hls4mlEmulator::Model *m, T value, bool input) {
            try { if (input) m->prepare_input(std::any(value)); else m->read_result(std::any(value)); return 0; }
            catch (const std::bad_any_cast &) { return 1; }
        }
        int main(int, char **argv) {
            void *library = dlopen(argv[1], RTLD_LAZY | RTLD_LOCAL);
            auto make = (hls4mlEmulator::Model * (*)()) dlsym(library, "create_model");
            auto *model = make();
            ap_fixed<18, 13> words[57]; ap_fixed<18, 14> others[57]; ap_ufixed<18, 14> score;
            std::pair<std::array<ap_fixed<10, 7, AP_RND_CONV, AP_SAT>, 3>, ap_ufixed<18, 14>> good;
            std::pair<std::array<ap_fixed<10, 7>, 3>, ap_ufixed<18, 14>> bad;
            for (auto &w : words) w = 0;
            if (!refused(model, &others[0], true) || refused(model, &words[0], true)) return 1;
            model->predict();
            if (!refused(model, &bad, false) || !refused(model, &score, false)) return 2;
            if (refused(model, &good, false)) return 3;
            return 0;
        }
        """
    )
    include = [native.ap_types(), pair[0].folder / "interface"]
    main = native.compile_program(tmp_path, ["main.cpp"], "main", headers=[], include=include)
    assert subprocess.run([main, pair[0].build()], check=False).returncode == 0


def test_make_check_and_a_wrong_golden_event(pair) -> None:
    command = ["make", "-s", "check", f"AP_TYPES={native.ap_types()}"]
    done = subprocess.run(command, cwd=pair[0].folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "GTADModel_v1: all golden events agree" in done.stdout
    golden = pair[0].folder / "golden.results"
    content = golden.read_bytes()
    golden.write_bytes(content[:8] + bytes([content[8] ^ 1]) + content[9:])
    try:
        assert subprocess.run(command, cwd=pair[0].folder, capture_output=True, check=False).returncode != 0
    finally:
        golden.write_bytes(content)


def test_make_without_ap_types_says_so(pair) -> None:
    command = ["make", "-B", "loader", "AP_TYPES=nowhere"]
    done = subprocess.run(command, cwd=pair[0].folder, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "no ap_fixed.h in 'nowhere'" in done.stdout


def test_a_score_without_latents(tail, tmp_path) -> None:
    emulator = cmssw.convert(tail, None, tmp_path / "p")
    assert emulator.version == "joint_tail"
    payload = (emulator.folder / "payload.h").read_text()
    assert "typedef std::pair<ap_fixed<18,14,AP_RND_CONV,AP_SAT>, ap_ufixed<18,14>> result_t;" in payload
    events = project.golden_vectors(tail.program, 300)
    assert (cmssw.load(emulator.folder).score(events) == tail.score(events)).all()
    assert list(emulator.trace(events)) == ["score"]


def student(seed: int, layout: str = "cms_calo_regions", outputs: int = 1) -> Trigger:
    """A dense student on the inputs of a layout, as CICADA's."""
    rng = np.random.default_rng(seed)
    n = get_layout(layout).n_inputs
    types = {
        "input": "ap_fixed<12,10,RND_CONV,SAT>",
        "weight": "ap_fixed<8,2>",
        "bias": "ap_fixed<8,4>",
        "relu": "ap_ufixed<10,6,RND_CONV,SAT>",
        "result": "ap_ufixed<16,8,RND_CONV,SAT>",
        "score": "ap_ufixed<18,14,TRN,SAT>",
    }
    weights = [rng.integers(-8, 9, (n, 4)), rng.integers(-30, 90, (4, outputs))]
    biases = [rng.integers(-60, 60, 4), rng.integers(-60, 60, outputs)]
    scaling = {"offset": np.zeros(n), "shift": np.full(n, 3), "word": "ap_fixed<21,16>"}
    return Trigger.from_layers(weights, biases, types, scaling, "student", layout=layout, name="cicada_v9")


def test_a_student_on_regions_has_the_interface_of_cicada(tmp_path) -> None:
    # cms-hls4ml/CICADA: ap_uint<10>* in; ap_ufixed<16,8,AP_RND_CONV,AP_SAT>* out; CICADAModel_<version>.so.
    trigger = student(1)
    emulator = cmssw.convert(trigger, None, tmp_path / "p")
    assert (emulator.model, emulator.payload) == ("CICADAModel_v9", "regions")
    events = project.golden_vectors(trigger.program, 4000)
    values = trigger.program.evaluate(events)
    assert (emulator.score(events) == values["score"][:, 0]).all()
    assert (emulator.trace(events)["result"] == values["result"]).all()
    assert len(np.unique(values["result"])) > 300
    assert "L1AD_PAYLOAD" in (emulator.folder / "payload.h").read_text()
    (tmp_path / "main.cpp").write_text(
        """
        #include "emulator.h"
        #include "ap_fixed.h"
        #include "ap_int.h"
        #include <cstdio>
        #include <dlfcn.h>
        int main(int, char **argv) {
            void *library = dlopen(argv[1], RTLD_LAZY | RTLD_LOCAL);
            if (!library) return 1;
            auto *model = ((hls4mlEmulator::Model * (*)()) dlsym(library, "create_model"))();
            ap_uint<10> regions[252]; ap_ufixed<16, 8, AP_RND_CONV, AP_SAT> score[1];
            std::FILE *in = std::fopen(argv[2], "rb");
            for (int codes[252]; std::fread(codes, sizeof codes, 1, in) == 1;) {
                for (int i = 0; i < 252; i++) regions[i] = codes[i];
                model->prepare_input(regions); model->predict(); model->read_result(score);
                std::printf("%d\\n", (int) score[0].range(15, 0).to_uint());
            }
            return 0;
        }
        """
    )
    events[:500].astype("<i4").tofile(tmp_path / "codes")
    include = [native.ap_types(), emulator.folder / "interface"]
    main = native.compile_program(tmp_path, ["main.cpp"], "main", headers=[], include=include)
    command = [main, emulator.build(), tmp_path / "codes"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert [int(code) for code in answer] == values["result"][:500, 0].tolist()


def test_the_interface_of_cicada_needs_regions_and_one_output(small, tmp_path) -> None:
    with pytest.raises(TriggerError, match="payload regions: found layout cms_ugt, expected words of one kind"):
        cmssw.convert(small(1), None, tmp_path, payload="regions")
    assert cmssw.convert(student(1, "atlas_l1topo"), None, tmp_path / "a").payload == "score"
    regions = get_layout("cms_calo_regions")
    builder = ProgramBuilder(regions)
    two = builder.take(builder.input, [0, 1])
    total = NodeOps(builder).total([(1.0, two)])
    trigger = Trigger(builder.program(score=total, latents=two), "pair", "student")
    with pytest.raises(TriggerError, match="no single output, expected a network with one output"):
        cmssw.convert(trigger, None, tmp_path / "b")
    builder = ProgramBuilder(regions)
    one = builder.take(builder.input, [0])
    doubled = NodeOps(builder).total([(0.5, one)])
    trigger = Trigger(builder.program(score=doubled, latents=one), "half", "student")
    with pytest.raises(TriggerError, match="payload regions: found a score of"):
        cmssw.convert(trigger, None, tmp_path / "c")
    assert cmssw.convert(trigger, None, tmp_path / "d", payload="score").model == "GTADModel_half"


def test_payloads_of_other_layouts() -> None:
    def words(layout: str) -> tuple[str, set[float]]:
        builder = ProgramBuilder(get_layout(layout))
        score = builder.quantize(builder.take(builder.input, [0]), FixedType(18, 14, False), name="score")
        kind, units = cmssw.payload_words(builder.program(score=score))
        return str(kind), set(units)

    assert words("cms_ugt") == ("ap_fixed<18,13>", {0.5, 1.0})
    assert words("cms_calo_regions") == ("ap_fixed<18,13>", {0.5})
    # The ETmiss word of L1Topo has 15 bits of 0.1 GeV: codes, as they come.
    assert words("atlas_l1topo") == ("ap_fixed<16,16>", {1.0})


def test_a_folder_of_another_trigger_is_refused(small, tmp_path) -> None:
    cmssw.convert(small(1), None, tmp_path / "p")
    cmssw.convert(small(1), None, tmp_path / "p")
    with pytest.raises(InputError, match=r"hash: found a project of trigger \w{12}, expected .*remove the folder"):
        cmssw.convert(small(2), None, tmp_path / "p")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"files but no project\.json"):
        cmssw.convert(small(1), None, tmp_path / "other")


def test_a_trigger_that_was_exchanged_in_the_folder_is_refused(small, tmp_path) -> None:
    cmssw.convert(small(1), None, tmp_path / "p")
    assert cmssw.load(tmp_path / "p").trigger_hash == small(1).hash
    small(2).save(tmp_path / "p" / "trigger.json")
    with pytest.raises(InputError, match=r"trigger\.json: found trigger"):
        cmssw.load(tmp_path / "p")


def test_bad_options(small, tail, tmp_path) -> None:
    with pytest.raises(InputError, match="version: found v 4"):
        cmssw.convert(small(1), None, tmp_path, version="v 4")
    with pytest.raises(InputError, match="payload"):
        cmssw.convert(small(1), None, tmp_path, payload="pair")
    with pytest.raises(TriggerError, match="latents: found none"):
        cmssw.convert(tail, None, tmp_path, payload="latents")


def test_menu_fragment_belongs_to_one_model(small, tmp_path) -> None:
    trigger = small(1).with_thresholds({"L1_AXO_Tight": 456, "L1_AXO_VLoose": 346})
    text = cmssw.menu_fragment(trigger, "GTADModel_v4")
    value = yaml.safe_load(text)
    assert value["model"] == "GTADModel_v4"
    assert value["hash"] == trigger.hash
    assert value["lsb"] == 0.0625
    path = tmp_path / "menu.yaml"
    path.write_text(text)
    assert cmssw.read_menu_fragment(path, trigger) == {"L1_AXO_VLoose": 346, "L1_AXO_Tight": 456}
    with pytest.raises(TriggerError, match="thresholds of trigger"):
        cmssw.read_menu_fragment(path, small(2))
    path.write_text(cmssw.menu_fragment(Trigger(trigger.program), "GTADModel_v4"))
    assert cmssw.read_menu_fragment(path, trigger) == {}
    path.write_text("seeds: 3")
    with pytest.raises(InputError, match="a menu fragment"):
        cmssw.read_menu_fragment(path, trigger)


def test_no_path_of_this_machine_is_written(pair) -> None:
    for path in pair[0].folder.iterdir():
        if (
            path.suffix in (".h", ".cpp", ".json", ".map", ".yaml") and path.name != "build.json"
        ) or path.name == "Makefile":
            assert str(pair[0].folder.parent) not in path.read_text()
            assert "site-packages" not in path.read_text()


def test_v4_answers_as_deployed(oracles, v4, tmp_path) -> None:
    data = np.load(oracles / "axol1tl_v4.npz")
    emulator = cmssw.convert(v4, None, tmp_path / "v4")
    payload = (emulator.folder / "payload.h").read_text()
    assert emulator.model == "GTADModel_v4"
    assert "typedef ap_fixed<18,13> word_t;" in payload
    latents = "std::array<ap_fixed<10,7,AP_RND_CONV,AP_SAT>, 8>"
    assert f"typedef std::pair<{latents}, ap_ufixed<18,14>> result_t;" in payload
    inputs = v4.inputs(data["hw"])
    assert (emulator.score(inputs) == data["score"]).sum() == 20_008
    trace = emulator.trace(inputs)
    assert (trace["result"] == data["mu"]).all()
    one = replace(emulator, workers=1)
    assert (one.score(inputs[:50]) == data["score"][:50]).all()
