"""The plan against its registration, in the file, in the storage and in the environment's locks."""

from __future__ import annotations

from ablations import plan as plans
from ablations.auditing.checks import Check
from ablations.auditing.evidence import Evidence
from ablations.layout import DESIGN, PLAN
from ablations.registration import document, environment_lock, keeping
from ablations.registration.document import ENVIRONMENTS
from ablations.trials import lay_out, sections
from operators.errors import InputError

NEVER = "the study was never registered: an older version began it"


def registration(evidence: Evidence) -> Check:
    """The registered digest, the amendments, and what the storage knows of both."""
    check = Check("study.yaml against its registration")
    registered = evidence.study.document
    stored = None if evidence.stored is None else keeping.stored(evidence.stored.attributes)
    if registered.registration is None:
        if stored is None:
            check.skip(NEVER)
        else:
            check.compare(PLAN, "registration", "nothing", "the registration in the storage")
        return check
    check.checked += 1 + len(registered.amendments)
    for fault in registered.faults:
        check.compare(PLAN, "digest", fault, "no edit")
    check.compare(PLAN, "registration.digest", registered.registration.digest, document.digest(registered.registered))
    if evidence.stored is None:
        check.skip(evidence.reasons["stored"])
        return check
    if stored is None:
        check.skip("the storage holds no registration")
        return check
    assert stored.registration is not None
    check.compare_trees(PLAN, registered.registration.written, stored.registration.written, 0.0, "registration")
    here, there = ([each.written for each in of.amendments] for of in (registered, stored))
    check.compare_trees(PLAN, here, there, 0.0, "amendments")
    check.compare_trees(PLAN, document.without_design(registered.plan), stored.plan, 0.0)
    return check


def design(evidence: Evidence) -> Check:
    """What `study.yaml` says to follow from the plan: cells, aliases, digests of the parts."""
    check = Check("design in study.yaml from its plan")
    content = evidence.study.content
    if "sections" not in content:
        check.skip("study.yaml holds no digests of the design")
        return check
    try:
        plan = plans.read(document.plan_node(content))
        designs = lay_out(plan)
        digests = sections(plan, content.get("given") or ())
    except InputError as error:
        check.skip(f"this version cannot lay out the plan: {' '.join(str(error).split())}")
        return check
    if evidence.study.document.registration is None:
        check.skip("digests of the design, which another version has made", len(digests))
    else:
        check.compare_trees(PLAN, content["sections"], digests, 0.0, "sections")
    for block in content.get("blocks") or ():
        laid = designs[block["name"]]
        facts = (laid.statement, [dict(cell) for cell in laid.cells], [list(alias) for alias in laid.aliases()])
        for key, fact in zip(DESIGN, facts, strict=True):
            check.compare_trees(PLAN, block.get(key), fact, 0.0, f"block {block['name']}.{key}")
    return check


def environment(evidence: Evidence) -> Check:
    """Each environment that the plan names has its lock, and each lock is one that the plan names."""
    check = Check("environment locks")
    document = evidence.study.document
    if document.registration is None:
        check.skip(NEVER)
        return check
    locks = environment_lock.files(evidence.path)
    named = list(document.plan.get(ENVIRONMENTS, []))
    for digest in named:
        if digest in locks:
            check.checked += 1
        elif len(locks) < len(named):
            check.skip("the lock of an environment is in another directory, or lost")
        else:
            check.compare(environment_lock.LOCK, "digest", ", ".join(locks), digest)
    for digest, path in locks.items():
        check.compare(path.name, "digest", digest, digest if digest in named else ", ".join(named))
    return check
