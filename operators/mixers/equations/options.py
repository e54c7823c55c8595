"""What the options of the mixer `pde_ssm` mean together, and which combinations mean nothing; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from operators.errors import InputError, check_choice, check_names, check_number
from operators.pde.boundary import check_boundary
from operators.pde.choice import FORCINGS, METHODS, NONLINEARITIES, UNITS, Call, named, refuse, refuse_boundary

TERMS = ("convection", "diffusion", "reaction")
ORDERS = (1, 2)
CHOICES = {
    "tensor": ("isotropic", "diagonal", "full"),
    "forcing": FORCINGS,
    "units": UNITS,
    "condition": ("none", "input", "cond"),
    "order": ORDERS,
    "initial_velocity": ("zero", "decay", "learned"),
    "nonlinearity": NONLINEARITIES,
    "method": METHODS,
}
"""Allowed values, by option."""
METHOD = "pde.method"


@dataclass(frozen=True)
class Agreed:
    """What follows from the options.

    Attributes:
        terms: in the order of `TERMS`.
        learned: those whose coefficients are learned.
        method: `method`, or the backend that stands for it.
        call: what routes are chosen by, as far as it is known before a grid and a device are. Where a reaction is not
            linear, states are channels of their own, each with one state.
        states: state channels per inner channel.
        tensor, initial_velocity, nonlinearity: the options of these names.
    """

    terms: tuple[str, ...]
    learned: frozenset[str]
    method: str
    call: Call
    states: int
    tensor: str
    initial_velocity: str
    nonlinearity: str


def check(*, backend: str, axes: int | None = None, **options: Any) -> Agreed:
    """What the options, all parameters of `operators.mixers.equations.pde_ssm.PdeSsm`, mean together.

    Args:
        backend: that of the mixer.
        axes: of its grid; None while it is not known.
        options: the others.

    Raises:
        InputError: unknown names, and combinations that cannot mean anything.
    """
    terms = _check_terms(options["terms"])
    for name, allowed in CHOICES.items():
        check_choice(f"pde.{name}", options[name], allowed)
    for name in ("groups", "state", "steps"):
        check_number(f"pde.{name}", options[name], least=1, integer=True)
    waves, reacts = options["order"] == 2, options["nonlinearity"] != "none"
    others = ["damping"] * waves + ["nonlinearity"] * reacts
    learned = _learned_terms(options["coefficients"], (*terms, *others))
    if options["initial_velocity"] == "learned":
        learned |= {"initial_velocity"}
    boundary = check_boundary("pde.boundary", options["boundary"], axes)
    full, conditioned = options["tensor"] == "full", options["condition"] != "none"
    call = Call(
        boundary=boundary,
        forcing=options["forcing"],
        spatial="diffusion" in terms or "convection" in terms,
        full=full,
        states=1 if reacts else options["state"],
        order=options["order"],
        conditioned=conditioned,
        axes=axes or (2 if isinstance(boundary, str) else len(boundary)),
    )
    method = named(options["method"], backend)
    _check_order(options, terms)
    refuse_boundary(call, "pde.boundary")
    refuse(method, call, METHOD)
    if call.forcing == "steady" and "reaction" not in terms:
        raise InputError("pde.forcing=steady needs decay: add reaction to pde.terms, or use pde.forcing=constant")
    if full and "diffusion" not in terms:
        raise InputError("pde.tensor=full has no diffusion to act on: add diffusion to pde.terms")
    if conditioned and not learned:
        raise InputError(f"pde.condition={options['condition']} has no learned coefficient to condition")
    named_only = {name: options[name] for name in ("tensor", "initial_velocity", "nonlinearity")}
    return Agreed(terms, learned, method, call, options["state"], **named_only)


def _check_order(options: Mapping[str, Any], terms: tuple[str, ...]) -> None:
    """Raise `InputError` for what only waves, or only equations without them, have."""
    reacts = options["nonlinearity"] != "none"
    if options["steps"] != 1 and not reacts:
        raise InputError(f"pde.steps={options['steps']} splits no reaction off: set pde.nonlinearity")
    if reacts and options["forcing"] != "initial":
        raise InputError(f"pde.nonlinearity={options['nonlinearity']} needs pde.forcing=initial")
    if options["order"] == 1:
        if options["initial_velocity"] != "zero":
            raise InputError(f"pde.initial_velocity={options['initial_velocity']} needs pde.order=2")
        return
    if options["forcing"] != "initial":
        raise InputError(f"pde.order=2 needs pde.forcing=initial, not {options['forcing']}")
    if "diffusion" not in terms:
        raise InputError("pde.order=2 has nothing that waves travel by: add diffusion to pde.terms")
    if reacts:
        raise InputError(f"pde.nonlinearity={options['nonlinearity']} needs pde.order=1")


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
