"""What the mixer `pde_ssm` may be told, and which combinations mean anything; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from operators.errors import InputError, check_choice, check_names, check_number

TERMS = ("convection", "diffusion", "reaction")
TENSORS = ("isotropic", "diagonal", "full")
CONDITIONS = ("none", "input", "cond")
BOUNDARIES = ("periodic", "neumann", "dirichlet", "absorbing")
FORCINGS = ("initial", "constant", "steady")
UNITS = ("pixel", "image")
METHODS = ("auto", "fft", "separable", "reference")
"""Those of the pure function `operators.pde.propagate`; the mixer has two more."""
COMPILED, COMPILED_FFT = "compiled", "compiled_fft"


@dataclass(frozen=True)
class Agreed:
    """What follows from the options.

    Attributes:
        terms: in the order of `TERMS`.
        learned: those whose coefficients are learned.
        method: `method`, or the backend that stands for it.
        separable: whether matrices along rows and columns can serve.
    """

    terms: tuple[str, ...]
    learned: frozenset[str]
    method: str
    separable: bool


def check(
    *,
    backend: str = "auto",
    terms: Any = TERMS,
    boundary: str = "periodic",
    coefficients: Any = "learned",
    tensor: str = "diagonal",
    forcing: str = "initial",
    units: str = "image",
    condition: str = "none",
    groups: int = 8,
    state: int = 4,
    method: str = "auto",
) -> Agreed:
    """What the options (see `operators.mixers.equations.pde_ssm.PdeSsm`) mean together.

    Raises:
        InputError: unknown names, and combinations that cannot mean anything.
    """
    chosen = _check_terms(terms)
    check_choice("pde.boundary", boundary, BOUNDARIES)
    check_choice("pde.tensor", tensor, TENSORS)
    check_choice("pde.forcing", forcing, FORCINGS)
    check_choice("pde.units", units, UNITS)
    check_choice("pde.condition", condition, CONDITIONS)
    check_number("pde.groups", groups, least=1, integer=True)
    check_number("pde.state", state, least=1, integer=True)
    learned = _learned_terms(coefficients, chosen)
    check_choice("pde.method", method, (*METHODS, COMPILED, COMPILED_FFT))
    if "auto" not in (method, backend) and method != backend:
        raise InputError(f"pde.method={method!r} and backend={backend!r} contradict each other: set one of them")
    method = backend if method == "auto" else method
    reason = why_not_separable(tensor == "full" and "diffusion" in chosen, forcing)
    separable = reason is None
    if method == COMPILED_FFT:
        reason = None
    if method in (COMPILED, COMPILED_FFT) and condition != "none":
        reason = reason or "needs pde.condition=none: its propagators serve all images"
    if method in ("separable", COMPILED, COMPILED_FFT) and reason:
        raise InputError(f"pde.method={method} {reason}; use pde.method=fft or auto")
    if forcing == "steady" and "reaction" not in chosen:
        raise InputError("pde.forcing=steady needs decay: add reaction to pde.terms, or use pde.forcing=constant")
    if tensor == "full" and "diffusion" not in chosen:
        raise InputError("pde.tensor=full has no diffusion to act on: add diffusion to pde.terms")
    if condition != "none" and not learned:
        raise InputError(f"pde.condition={condition} has no learned coefficient to condition")
    return Agreed(chosen, learned, method, separable)


def why_not_separable(full: bool, forcing: str) -> str | None:
    """Why two matrix products cannot serve a tensor (`full` or not) and a forcing; None if they can."""
    if forcing != "initial":
        return f"needs forcing='initial', not {forcing!r}"
    return "needs a diagonal or isotropic tensor" if full else None


def _check_terms(terms: Any) -> tuple[str, ...]:
    if isinstance(terms, str) or not isinstance(terms, Sequence):
        raise InputError(f"pde.terms={terms!r} must be a list, a subset of [{', '.join(TERMS)}]")
    for term in terms:
        check_choice("pde.terms", term, TERMS)
    if len(set(terms)) < len(terms):
        raise InputError(f"pde.terms={list(terms)!r} names a term twice")
    return tuple(term for term in TERMS if term in terms)


def _learned_terms(coefficients: Any, terms: tuple[str, ...]) -> frozenset[str]:
    """The terms whose coefficients are learned."""
    if isinstance(coefficients, Mapping):
        check_names("pde.coefficients", coefficients, terms)
        kinds = {term: coefficients.get(term, "learned") for term in terms}
    else:
        kinds = dict.fromkeys(terms, coefficients)
    for term, kind in [("", coefficients)] if not isinstance(coefficients, Mapping) else kinds.items():
        check_choice(f"pde.coefficients{'.' if term else ''}{term}", kind, ("learned", "fixed"))
    return frozenset(term for term, kind in kinds.items() if kind == "learned")
