import importlib.metadata
import sys

import pytest
import torch

import operators
from operators import Core, Cost, InputError, MixerCard, ShellSpec, registry


def card(name, **more):
    facts = {
        "title": "Test",
        "source": "none",
        "year": 2000,
        "equation": "y = 2 u",
        "position_aware": False,
        "permutation_equivariant": True,
        "translation_equivariant": "circular",
        "linear": True,
        "backends": ("torch",),
    }
    return MixerCard(name=name, **{**facts, **more})


class Doubling(Core):
    def __init__(self, site, *, backend="auto", factor=2.0):
        super().__init__(site, backend=backend)
        self.factor = factor

    def forward(self, u, *, x, cond=None):
        return self.factor * u

    def core_cost(self, height, width):
        return Cost()


class Conditioned(Doubling):
    @property
    def needs_cond(self):
        return True

    def forward(self, u, *, x, cond=None):
        return u * cond[:, None, None, :1]


@pytest.fixture
def clean(monkeypatch):
    """A registry whose changes end with the test."""
    operators.names()
    monkeypatch.setattr(registry, "_cores", dict(registry._cores))
    monkeypatch.setattr(registry, "_broken", {})


# ---------------------------------------------------------------- names and parameters


def test_names_are_sorted_and_described_under_their_name():
    names = operators.names()
    assert names == sorted(set(names))
    assert {"attention", "conv", "identity", "pool", "random"} <= set(names)
    assert [operators.describe(name).name for name in names] == names


def test_names_are_chosen_by_what_cards_say(clean):
    scans = operators.names(family="scan")
    assert {"mamba", "ss2d"} <= set(scans) == {n for n in operators.names() if operators.describe(n).family == "scan"}
    assert operators.names(linear=True, family="controls") == ["conv", "identity", "pool", "random"]
    assert operators.names(causal_along="nothing") == []
    registry.register(card("doubling", family="scan"))(Doubling)
    assert operators.names(family="scan") == sorted([*scans, "doubling"])
    with pytest.raises(InputError, match=r"a mixer's card has no 'famly': .*; did you mean 'family'\?"):
        operators.names(famly="scan")


def test_a_family_is_a_folder():
    for name in operators.names():
        module, family = registry.core_class(name).__module__, operators.describe(name).family
        assert module.startswith(f"operators.mixers.{family}.")


def test_cards_say_what_code_a_mixer_was_compared_with():
    assert [name for name in operators.names() if not operators.describe(name).code] == []


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("atention", {}, r"mixer='atention' is not known: allowed are .*; did you mean 'attention'\?"),
        ("attention", {"head": 2}, r"mixer attention has no 'head': .*; did you mean 'heads'\?"),
        ("attention", {"backend": "sdp"}, r"backend of attention='sdp' is not known: .*; did you mean 'sdpa'\?"),
        ("attention", {"shell": "publisht"}, r"shell='publisht' is not known: .*; did you mean 'published'\?"),
        ("attention", {"shell": {"gates": "none"}}, r"shell has no 'gates': .*; did you mean 'gate'\?"),
        ("attention", {"shell": {"gate": "sil"}}, r"shell\.gate='sil' is not known: .*; did you mean 'silu'\?"),
        ("attention", {"shell": {"conv": 4}}, r"shell\.conv=4 is not known: allowed are 0, 3, 5, 7"),
        ("attention", {"shell": {"norm": "batch"}}, r"shell\.norm='batch' is not known: allowed are rms, layer, none"),
        ("attention", {"shell": {"expand": 0}}, r"shell\.expand=0 must be a number >= "),
        ("attention", {"shell": {"project": False}}, r"shell\.project=False needs shell\.gate='none'"),
        ("attention", {"dim": 0}, r"dim=0 must be an integer >= 1"),
        ("attention", {"dim": 16.0}, r"dim=16\.0 must be an integer >= 1"),
    ],
    ids=str,
)
def test_wrong_input_is_refused_in_one_line_with_the_nearest_name(name, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        operators.create(name, **{"dim": 16, **arguments})
    assert "\n" not in str(caught.value)


def test_describe_refuses_unknown_names():
    with pytest.raises(InputError, match=r"did you mean 'identity'"):
        operators.describe("identiti")


# ---------------------------------------------------------------- registration


def test_a_mixer_of_ones_own_registers_and_is_created(clean):
    core = registry.register(card("doubling"))(Doubling)
    assert "doubling" in operators.names()
    assert operators.describe("doubling").defaults == {"factor": 2.0}
    assert core.card is operators.describe("doubling")
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(operators.create("doubling", 5, shell=operators.BARE, factor=3.0)(x), 3 * x)


def test_registrations_of_a_test_end_with_it():
    assert "doubling" not in operators.names()


def test_registering_a_name_twice_is_refused(clean):
    line = r"'identity' is registered twice: by operators\.mixers\.controls\.controls and .*test_registry"
    with pytest.raises(InputError, match=line):
        registry.register(card("identity"))(Doubling)
    assert registry.core_class("identity").__module__ == "operators.mixers.controls.controls"


@pytest.mark.parametrize("default", [..., object(), {1: 2}, [len]], ids=["none", "object", "key", "list"])
def test_a_default_that_no_configuration_holds_is_refused(clean, default):
    class Odd(Doubling):
        def __init__(self, site, *, backend="auto", factor=default):
            super().__init__(site, backend=backend)

    if default is ...:
        Odd.__init__.__kwdefaults__.pop("factor")
    with pytest.raises(InputError, match="mixer 'odd': factor needs a default that a configuration can hold"):
        registry.register(card("odd"))(Odd)


@pytest.mark.parametrize(("made", "said"), [(lambda u: u[:, :1], r"\(1, 1, 5, 8\)"), (lambda u: None, "NoneType")])
def test_a_core_that_breaks_its_contract_is_told(made, said):
    mixer = operators.create("identity", 8)
    mixer.core.forward = lambda u, *, x, cond=None: made(u)
    with pytest.raises(InputError, match=rf"identity: its core made {said} of \(1, 4, 5, 8\), not \(1, 4, 5, 8\)"):
        mixer(torch.zeros(1, 4, 5, 8))
    mixer.core.core_cost = lambda height, width: None
    with pytest.raises(InputError, match="mixer identity: its core_cost gives None, not a Cost"):
        mixer.cost(4, 5)


THIRD_PARTY = """
from operators import Core, Cost, MixerCard, register

@register(MixerCard("negation", "Negation", "none", 2000, "y = -u", False, True, "circular", True, ("torch",)))
class Negation(Core):
    def forward(self, u, *, x, cond=None):
        return -u

    def core_cost(self, height, width):
        return Cost()
"""


def test_installed_metadata_that_is_damaged_breaks_nothing_of_ours(clean, monkeypatch):
    def damaged(group):
        raise TypeError("Pair.__new__() missing 1 required positional argument: 'value'")

    monkeypatch.setattr(registry, "entry_points", damaged)
    monkeypatch.setattr(registry, "_loaded", False)
    assert "pool" in registry.names()
    assert registry.broken()["entry points"].startswith("those that are installed cannot be read: TypeError: Pair")


def test_entry_points_register_or_say_why_not(clean, monkeypatch, tmp_path):
    (tmp_path / "zoo_third_party.py").write_text(THIRD_PARTY)
    (tmp_path / "zoo_broken.py").write_text("raise RuntimeError('needs a newer zoo')")
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        importlib.metadata.EntryPoint("negation", "zoo_third_party:Negation", registry.ENTRY_POINTS),
        importlib.metadata.EntryPoint("broken_one", "zoo_broken:Mixer", registry.ENTRY_POINTS),
        importlib.metadata.EntryPoint("absent_one", "zoo_absent:Mixer", registry.ENTRY_POINTS),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "operator_zoo.mixers" else [])
    monkeypatch.setattr(registry, "_loaded", False)
    try:
        x = torch.randn(1, 2, 3, 4)
        assert torch.equal(operators.create("negation", 4, shell=operators.BARE)(x), -x)
        assert registry.broken() == {
            "broken_one": "RuntimeError: needs a newer zoo",
            "absent_one": "ModuleNotFoundError: No module named 'zoo_absent'",
        }
        assert "broken_one" not in operators.names()
        with pytest.raises(
            InputError, match=r"'broken_one' is installed but does not load: RuntimeError: needs a newer"
        ):
            operators.create("broken_one", 4)
    finally:
        sys.modules.pop("zoo_third_party", None)


# ---------------------------------------------------------------- calls


def test_a_conditioned_mixer_refuses_none_and_other_shapes(clean):
    registry.register(card("conditioned"))(Conditioned)
    mixer = operators.create("conditioned", 5, cond_dim=3, shell=operators.BARE)
    x, cond = torch.randn(2, 3, 4, 5), torch.randn(2, 3)
    assert torch.equal(mixer(x, cond), x * cond[:, None, None, :1])
    with pytest.raises(InputError, match=r"needs cond of shape \(B, 3\), not None"):
        mixer(x)
    for wrong in (cond[:1], cond[:, :2], cond[0]):
        with pytest.raises(InputError, match=r"takes cond of shape \(2, 3\)"):
            mixer(x, wrong)


def test_the_others_accept_cond_and_ignore_it():
    mixer = operators.create("attention", 8, cond_dim=3)
    x = torch.randn(2, 3, 4, 8)
    assert torch.equal(mixer(x, torch.randn(2, 3)), mixer(x))
    with pytest.raises(InputError, match=r"takes cond of shape \(2, 3\), not \(2, 4\)"):
        mixer(x, torch.randn(2, 4))


@pytest.mark.parametrize("shape", [(2, 3, 4, 7), (3, 4, 8), (2, 12, 8)], ids=str)
def test_input_of_another_shape_is_refused(shape):
    with pytest.raises(InputError, match=r"mixer pool takes \(B, H, W, 8\), not "):
        operators.create("pool", 8)(torch.randn(shape))


def test_a_smallest_grid_is_kept(clean):
    registry.register(card("doubling", min_grid=(2, 3)))(Doubling)
    mixer = operators.create("doubling", 5, shell=operators.BARE)
    assert mixer(torch.ones(1, 2, 3, 5)).sum() == 60
    for grid in ((1, 3), (2, 2)):
        with pytest.raises(InputError, match=r"needs a grid of at least \(2, 3\), not"):
            mixer(torch.ones(1, *grid, 5))


# ---------------------------------------------------------------- shells


@pytest.mark.parametrize(
    ("shell", "expected"),
    [
        ("common", ShellSpec()),
        ("published", ShellSpec(gate="none", norm="none", bias=True)),
        ({"conv": 3}, ShellSpec(conv=3)),
        ({"name": "common", "gate": None, "norm": "layer"}, ShellSpec(norm="layer")),
        ({"name": "published", "expand": 2, "bias": None}, ShellSpec(expand=2, gate="none", norm="none", bias=True)),
        (ShellSpec(expand=3), ShellSpec(expand=3)),
    ],
    ids=str,
)
def test_a_shell_is_a_preset_or_a_mapping_of_overrides_where_none_keeps(shell, expected):
    assert operators.create("attention", 8, shell=shell).shell.spec == expected


def test_published_is_refused_where_the_paper_does_not_tell(clean):
    registry.register(card("doubling", shells={"project": ShellSpec(expand=2)}))(Doubling)
    with pytest.raises(InputError, match=r"'published' does not exist for doubling .*; allowed are common, project"):
        operators.create("doubling", 8, shell="published")
    assert operators.create("doubling", 8, shell="project").shell.width == 16


def test_of_many_names_a_refusal_lists_those_that_are_like_the_one_given() -> None:
    with pytest.raises(InputError) as caught:
        operators.create("pdessm", 8)
    line = str(caught.value)
    assert f"allowed are {len(operators.names())} names, such as pde_ssm, " in line
    assert line.endswith("; did you mean 'pde_ssm'?")
    assert line.count(",") < 10
