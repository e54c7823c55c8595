"""Each contract test finds the fault it is there for, and nothing else to complain about.

Sound cores with true cards keep every promise. A broken core, or a card with one lie, is caught by the test
for that promise, with the message that says so, and by that test alone (unless the fault spreads by nature).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

import operators
from operators import Core, MixerCard, ShellSpec, registry
from operators.testing.cases import Case
from operators.testing.contract import Contract, MixerContract, skip_if_exempt
from operators.testing.properties import CardContract
from tests.operators.throwaway import broken, sound

NAME = "throwaway"
# In the common shell alone the norm would hide a wrong factor, and in the bare one autocast has little to do.
SHELLS = (operators.BARE, "common")
SLOW = {"compile", "compile_inductor"}
TRUTH = MixerCard(
    name=NAME,
    title="A core for the contract's own tests",
    source="none",
    year=2000,
    equation="y = u + W mean(u)",
    position_aware=False,
    permutation_equivariant=True,
    translation_equivariant="circular",
    linear=True,
    backends=("torch",),
)
PLACED = {"position_aware": True, "permutation_equivariant": False, "translation_equivariant": None}
READS = {"linear": False, "reads_context": True}
TRUTHS: dict[type[Core], Mapping[str, Any]] = {
    sound.Mean: {},
    sound.Ramp: PLACED,
    sound.Neighbours: {**PLACED, "translation_equivariant": "interior", "causal_along": "row"},
    sound.Running: {**PLACED, "causal_along": "row"},
    sound.TokenWise: {},
    sound.Squares: {"linear": False},
    sound.Sum: {"extensive": True},
    sound.Table: {**PLACED, "fixed_grid": True},
    sound.Single: {"linear": False, "fp32_core": True},
    sound.Reader: READS,
}


@dataclass(frozen=True)
class Fault:
    """A core, what its card says other than the truth about it, the test that must object, and how."""

    promise: str
    core: type[Core]
    message: str
    card: Mapping[str, Any] = field(default_factory=dict)
    spreads: bool = False

    def __str__(self) -> str:
        lie = "-".join(f"{key}={value}" for key, value in self.card.items() if isinstance(value, str | bool | None))
        return "-".join(filter(None, [self.promise, self.core.__name__, lie]))


FAULTS = [
    Fault("shape_and_dtype", broken.NotFinite, "not finite", spreads=True),
    Fault("shape_and_dtype", broken.Transposed, r"made \(2, 7, 5, 16\) of \(2, 5, 7, 16\)", spreads=True),
    Fault("serves_grids", broken.RemembersGrid, "another grid than before", spreads=True),
    Fault("serves_grids", sound.Table, "size", {"fixed_grid": False}, spreads=True),
    Fault("min_grid", broken.NeedsTwoRows, r"made \(2, 0, 1, 16\) of \(2, 1, 1, 16\)", spreads=True),
    Fault("batch_independence", broken.BatchMean, "image among others|output of image 0 alone", spreads=True),
    Fault("batch_independence", broken.BatchMeanInTraining, "image among others|output of image 0 alone"),
    Fault("determinism", broken.Noisy, "output: relative RMS error", spreads=True),
    Fault("determinism", broken.Unseeded, "core.weight", spreads=True),
    Fault("reads_only", broken.Overwrites, "input after the call", spreads=True),
    Fault("memory_layout", broken.AssumesStrides, "strided input"),
    Fault("autocast", broken.Cancels, "output under autocast"),
    Fault("compile", broken.OtherwiseCompiled, "compiled output"),
    Fault("state_dict", broken.Unsaved, "output after loading"),
    Fault("state_dict", broken.PicklesState, "weights_only|Unsupported", spreads=True),
    Fault("gradients", broken.Unused, "core.spare gets no gradient"),
    Fault("gradients", broken.Dead, "gradient of core.spare is zero"),
    Fault("extreme_inputs", broken.RootAtZero, "gradient of input for zeros"),
    Fault("extreme_inputs", broken.Overflows, "output for one huge token|output for 1e4", spreads=True),
    Fault("cost", broken.Flatters, "the counter saw"),
    Fault("cost", broken.CostDependsOnRoute, "depends on the way"),
    Fault("no_weight_decay", broken.SparesNobody, "core.wait"),
    Fault("copies", broken.HoldsFunction, "pickle|local object"),
    Fault("inspect", broken.ShowsNaN, "inspect's map"),
    Fault("inspect", broken.ShowsNumber, "gives size as float"),
    Fault("cond", broken.Listens, "condition that is not needed"),
    Fault("cond", broken.Deaf, "outputs under two conditions"),
    Fault("meta_device", broken.Branches, "meta"),
    Fault("backends_agree", broken.Backends, "output of fast", {"backends": ("fast", "plain")}),
    Fault("card", sound.Mean, "must be given", {"source": " "}),
    Fault("card", sound.Mean, "not a contract test", {"exempt": {"test_cost": "a slip"}}),
    Fault("card", sound.Mean, "without a reason", {"exempt": {"cost": ""}}),
    Fault("card", sound.Mean, "whose shell is not its own", {"exempt": {"cost[published]": "a slip"}}),
    Fault("permutation_equivariant", sound.Ramp, "claimed", {"permutation_equivariant": True}),
    Fault("permutation_equivariant", sound.Mean, "denied", {"permutation_equivariant": False}),
    Fault("position_aware", sound.Ramp, "claimed", {"position_aware": False}),
    Fault("position_aware", sound.Mean, "denied", {"position_aware": True}),
    Fault("translation_equivariant", sound.Ramp, "wrapped shift.*claimed", {"translation_equivariant": "circular"}),
    Fault("translation_equivariant", sound.Ramp, "border.*claimed", {"translation_equivariant": "interior"}),
    Fault("translation_equivariant", sound.Mean, "wrapped shift.*denied", {"translation_equivariant": "interior"}),
    Fault("translation_equivariant", sound.Mean, "wrapped shift.*denied", {"translation_equivariant": None}),
    Fault(
        "translation_equivariant", sound.Neighbours, "wrapped shift.*claimed", {"translation_equivariant": "circular"}
    ),
    Fault("translation_equivariant", sound.Neighbours, "border.*denied", {"translation_equivariant": None}),
    Fault("linear", sound.Squares, "superposition.*claimed", {"linear": True}),
    Fault("linear", sound.Mean, "superposition.*denied", {"linear": False}),
    Fault("causal_along", sound.Mean, "along row.*claimed", {"causal_along": "row"}),
    Fault("causal_along", sound.Running, "along col.*claimed", {"causal_along": "col"}),
    Fault("causal_along", sound.Running, "along row.*denied", {"causal_along": None}),
    Fault("causal_along", sound.TokenWise, "token-wise", {"causal_along": "row"}),
    Fault("causal_along", sound.Running, "the contract knows", {"causal_along": "rows"}),
    Fault("fixed_grid", sound.Mean, "no parameter or buffer", {"fixed_grid": True}),
    Fault("extensive", sound.Sum, "denied", {"extensive": False}),
    Fault("extensive", sound.Mean, "claimed", {"extensive": True}),
    Fault("fp32_core", broken.HalfExponential, "in half precision ran aten::exp", {"linear": False, "fp32_core": True}),
    Fault("fp32_core", sound.Mean, "nothing ran in float32", {"fp32_core": True}),
    Fault("fp32_core", sound.Single, "all ran in float32", {"fp32_core": False}),
    Fault("state", broken.HidesState, "state_elements=15, but 16 numbers pass"),
    Fault("state", broken.BoastsState, "state_elements=640, but a pass reaches 576 numbers"),
    Fault("state_param", sound.Parts, "parts is not the state_param"),
    Fault("state_param", sound.Parts, "square is not the state_param", {"state_param": "parts"}),
    Fault("state_param", sound.Parts, "32, 128, …, 512", {"state_param": "square"}),
    Fault("state_param", sound.Mean, "no parameter of the mixer", {"state_param": "width"}),
    Fault("projection_cost", broken.SquareProjection, "by tokens"),
    Fault("axes", sound.Mean, "cost of a video", {"axes": (2, 3)}),
    Fault("axes", broken.PerFrame, "a video's permuted tokens", {"axes": (2, 3)}),
    Fault("reads_context", broken.ReadsItself, "own tokens as context", READS),
    Fault("reads_context", broken.ReadsInOrder, "in another order", READS),
    Fault("reads_context", broken.ReadsMasked, "with a mask", READS),
    Fault("reads_context", broken.ReadsForFree, "the counter saw", READS),
    Fault("reads_context", sound.Mean, "its core has no read", {"reads_context": True}),
]
SLOW_FAULTS = [Fault("compile_inductor", broken.OtherwiseCompiled, "compiled output")]


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Registers a core under `NAME` for one test, its card true but for the lies given."""
    operators.names()
    monkeypatch.setattr(registry, "_cores", dict(registry._cores))

    def register(core: type[Core], **lies: Any) -> None:
        monkeypatch.setattr(core, "card", TRUTH, raising=False)
        operators.register(replace(TRUTH, **{**TRUTHS.get(core, {}), **lies}))(core)

    return register


def keep(promise: str, *shells: str | ShellSpec) -> None:
    """Run the contract test of a promise on the registered core, in each shell, once for each of its parameters."""
    contract = MixerContract if promise in MixerContract.promises() else CardContract
    test = getattr(contract(), f"test_{promise}")
    marks = [mark.args for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    for shell in shells or (SHELLS if contract is MixerContract else SHELLS[:1]):
        for arguments in [{marks[0][0]: value} for value in marks[0][1]] if marks else [{}]:
            test(Case(NAME, shell), **arguments)


def objection(promise: str, *shells: str | ShellSpec) -> str | None:
    """What the test of a promise has against the registered core, if anything. A skipped test has nothing."""
    try:
        keep(promise, *shells)
    except pytest.skip.Exception:
        return None
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - any failure counts, and is shown
        return f"{type(error).__name__}: {error}"
    return None


PROMISES = sorted({*MixerContract.promises(), *CardContract.promises()})


@pytest.mark.parametrize("core", TRUTHS, ids=lambda core: core.__name__)
def test_sound_cores_keep_every_promise(enter: Any, core: type[Core]) -> None:
    enter(core)
    found = {promise: objection(promise) for promise in PROMISES if promise not in SLOW}
    assert {promise: text for promise, text in found.items() if text} == {}


def test_sound_core_keeps_every_promise_in_a_full_shell(enter: Any) -> None:
    enter(sound.Mean)
    for promise in set(MixerContract.promises()) - SLOW:
        keep(promise, ShellSpec(expand=2, conv=3, norm="layer", bias=True))


def test_sound_core_compiles(enter: Any) -> None:
    enter(sound.Mean)
    keep("compile")


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_fault_is_found(enter: Any, fault: Fault) -> None:
    enter(fault.core, **fault.card)
    with pytest.raises((Exception, pytest.fail.Exception), match=fault.message):
        keep(fault.promise)
    if not fault.spreads:
        # Where the card lies about a sound core, that core has been tried in both shells above.
        shells = SHELLS[:1] if fault.core in TRUTHS else ()
        others = {promise: objection(promise, *shells) for promise in PROMISES if promise not in SLOW | {fault.promise}}
        assert {promise: text for promise, text in others.items() if text} == {}


@pytest.mark.slow
@pytest.mark.parametrize("fault", SLOW_FAULTS, ids=str)
def test_slow_fault_is_found(enter: Any, fault: Fault) -> None:
    enter(fault.core, **fault.card)
    with pytest.raises(AssertionError, match=fault.message):
        keep(fault.promise)


def test_every_promise_has_a_fault() -> None:
    proven = {fault.promise for fault in [*FAULTS, *SLOW_FAULTS]}
    assert sorted(proven) == PROMISES


class ExemptCase(Case):
    @property
    def card(self) -> MixerCard:
        return replace(
            TRUTH, exempt={"anything": "its authors see it otherwise", "much[published]": "its authors' norm is weak"}
        )


class TestExemption(Contract):
    cases = (ExemptCase(NAME),)

    def test_anything(self, case: Case) -> None:
        pytest.fail("a test ran that the card is exempt from")


def test_exemption_gives_its_reason_and_spares_other_tests() -> None:
    with pytest.raises(pytest.skip.Exception, match="throwaway is exempt: its authors see it otherwise"):
        skip_if_exempt(ExemptCase(NAME), "anything")
    skip_if_exempt(ExemptCase(NAME), "something")
    with pytest.raises(pytest.skip.Exception, match="authors' norm is weak"):
        skip_if_exempt(ExemptCase(NAME, "published"), "much")
    skip_if_exempt(ExemptCase(NAME), "much")
