"""Mixers that start from learned states: which do, what the states change, and what is refused."""

import copy

import pytest
import torch
import torch.nn.functional as F

import models
import operators
from operators import InputError
from operators.scan import orders
from operators.states import InitialStates, tuned
from operators.testing.cases import noise
from operators.testing.checks import assert_close, assert_differs, assert_finite
from operators.testing.counter import count_macs
from operators.transfer import transferred
from tests.operators.mixers.drawn import image, make

FAMILIES = ("scan", "duality", "linear", "delta")
MIXERS = {name: make(name, 8, grid=(3, 5)) for family in FAMILIES for name in operators.names(family=family)}
MODEL = {"image_size": (6, 10), "in_channels": 1, "num_classes": 3, "depth": 2, "dim": 8, "patch": 2}


def serves(mixer):
    return any(isinstance(part, InitialStates) for part in mixer.modules())


SERVED = [name for name, mixer in MIXERS.items() if serves(mixer)]


def adapted(name, conditions=1, *, freeze=False, **params):
    """A mixer in float64 with random states."""
    mixer = copy.deepcopy(MIXERS[name]) if not params else make(name, 8, grid=(3, 5), **params)
    result = tuned(mixer, conditions, freeze=freeze)
    with torch.no_grad():
        for seed, state in enumerate(result.states.values()):
            state.copy_(noise(*state.shape, dtype=torch.float64, seed=seed))
    return result


def test_scans_and_linear_recurrences_are_served():
    assert set(operators.names(family="scan")) <= set(SERVED)
    assert {"ssd", "hydra", "mamba3", "gla", "deltanet", "gated_deltanet", "kda", "deltaproduct"} <= set(SERVED)
    assert not {"log_linear", "lion", "vil", "vision_rwkv", "ttt"} & set(SERVED)
    others = sorted(set(operators.names()) - set(MIXERS))
    assert not [name for name in others if serves(make(name, 8, grid=(3, 5)))]


@pytest.mark.parametrize("name", SERVED)
def test_zero_states_change_nothing_and_each_state_counts(name):
    mixer, x = copy.deepcopy(MIXERS[name]).requires_grad_(False), image(3, 5, width=8)
    before = mixer(x)
    result = tuned(mixer)
    assert torch.equal(result(x), before)
    (result(x) * noise(*x.shape, dtype=x.dtype, seed=9)).sum().backward()
    for state_name, state in result.states.items():
        for sequence in state.grad[0]:
            assert_finite(sequence, state_name)
            assert sequence.abs().max() > 1e-12, f"{state_name} counts for nothing"
    assert all(parameter.grad is None for parameter in result.parameters() if not parameter.requires_grad)


@pytest.mark.parametrize("name", SERVED)
def test_states_of_fast_paths_are_those_of_the_loops(name):
    x, results = image(3, 5, width=8), {}
    for backend in ("auto", "chunked", "reference"):
        result = adapted(name, backend=backend)
        leaf = x.clone().requires_grad_()
        y = result(leaf)
        leaves = {"x": leaf, **dict(result.named_parameters())}
        weights = noise(*y.shape, dtype=y.dtype, seed=4)
        gradients = torch.autograd.grad(y, list(leaves.values()), weights, allow_unused=True, materialize_grads=True)
        results[backend] = {"y": y.detach(), **dict(zip(leaves, gradients, strict=True))}
    assert_differs(results["reference"]["y"], MIXERS[name](x), 1e-3, "y from zero")
    for backend in ("auto", "chunked"):
        for key, expected in results["reference"].items():
            assert_close(results[backend][key], expected, 1e-10, f"{key} of {backend}")


def zigma_by_loops(mixer, x, order, h):
    """`zigma` on an image x (H, W, D), along an order from the state h (D, S)."""
    (branch,) = mixer.core.branches
    height, width, _ = x.shape
    y = torch.zeros_like(x)
    for place in orders.permutation(order, height, width).tolist():
        i, j = divmod(place, width)
        step, B, C = (t[0, 0] for t in branch.maps(x[i, j][None, None]))
        dt = F.softplus(step + branch.step.bias)
        h = torch.exp(-dt[:, None] * branch.A_log.exp()) * h + (dt * x[i, j])[:, None] * B
        y[i, j] = h @ C + branch.D * x[i, j]
    return y


@pytest.mark.parametrize("order", orders.names())
def test_along_every_order_the_state_stands_before_the_first_token(order):
    result = adapted("zigma", order=order, state_dim=3)
    x, (state,) = image(3, 5, width=8, batch=1), result.states.values()
    y, expected = result(x), zigma_by_loops(result.model, x[0], order, state[0, 0])[None]
    assert_close(y, expected, 1e-12, "y")
    weights = noise(*y.shape, dtype=y.dtype, seed=4)
    made, right = (torch.autograd.grad((weights * each).sum(), state)[0] for each in (y, expected))
    assert_close(made, right, 1e-12, "gradient of the state")


@pytest.mark.parametrize("reverse", [False, True])
def test_ssd_by_loops(reverse):
    result = adapted("ssd", orders=["col_r" if reverse else "col"], heads=2, state_dim=3)
    x, (state,) = image(5, 2, width=8), result.states.values()
    (branch,) = result.model.core.branches
    sequence = orders.gather(x, "col_r" if reverse else "col")
    v, B, C, step = branch.maps(sequence, sequence)
    h, outputs = state[0, 0].expand(2, -1, -1, -1), []
    for t in range(v.shape[1]):
        fade = torch.exp(-branch.A_log.exp() * step[:, t])
        h = fade[..., None, None] * h + (step[:, t, :, None] * v[:, t])[:, :, None] * B[:, t, None, :, None]
        outputs.append((h * C[:, t, None, :, None]).sum(2) + branch.D[:, None] * v[:, t])
    expected = orders.scatter(torch.stack(outputs, 1).flatten(2), "col_r" if reverse else "col", 5, 2)
    assert_close(result(x), expected, 1e-12, "y")


@pytest.mark.parametrize("name", ["mamba", "plainmamba", "gla", "hydra", "kda"])
def test_every_image_starts_from_the_states_of_its_condition(name):
    result, x = adapted(name, 3), image(2, 3, width=8, batch=3)
    y = result(x, condition=torch.tensor([2, 0, 2]))
    for index, condition in enumerate((2, 0, 2)):
        alone = adapted(name)
        with torch.no_grad():
            for mine, theirs in zip(alone.states.values(), result.states.values(), strict=True):
                mine.copy_(theirs[condition : condition + 1])
        assert_close(y[index], alone(x)[index], 1e-13, "y")
    y.sum().backward()
    for state in result.states.values():
        assert state.grad[1].abs().max() == 0 < state.grad[2].abs().max()


@pytest.mark.parametrize("name", ["mamba", "spatial_mamba", "ssd", "gla", "hydra", "deltanet", "kda"])
def test_costs_count_the_states(name):
    result, x = adapted(name), image(7, 11, width=8, batch=1)
    cost, before = result.model.cost(7, 11), MIXERS[name].cost(7, 11)
    assert cost.parameters - before.parameters == sum(state.numel() for state in result.states.values())
    one, two = (count_macs(result, x.expand(batch, -1, -1, -1)) for batch in (1, 2))
    assert cost.macs == two - one


def test_states_are_not_decayed_and_survive_saving():
    result = adapted("mamba", 2)
    names = {name.removeprefix("model.") for name in result.states}
    assert names == {f"core.branches.{i}.initial.weight" for i in (0, 1)}
    assert names <= result.model.no_weight_decay()
    other = tuned(copy.deepcopy(MIXERS["mamba"]), 2)
    other.load_state_dict(copy.deepcopy(result.state_dict()))
    x, condition = image(3, 5, width=8), torch.tensor([1, 0])
    assert torch.equal(other(x, condition=condition), result(x, condition=condition))
    plain = MIXERS["mamba"].state_dict()
    assert set(result.model.state_dict()) - set(plain) == names
    assert set(plain) <= set(result.model.state_dict())


def test_states_alone_learn_a_class():
    torch.manual_seed(0)
    model = models.create("vit_nano", mixers=models.MixerSpec("mamba"), **MODEL)
    result = tuned(model)
    fixed = {name: p.detach().clone() for name, p in result.named_parameters() if not p.requires_grad}
    assert set(fixed) == set(dict(result.named_parameters())) - set(result.states)
    images, labels = torch.randn(8, 1, 6, 10), torch.full((8,), 2)
    optimizer = torch.optim.Adam(result.states.values(), lr=0.5)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = F.cross_entropy(result.eval()(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0], losses
    for name, before in fixed.items():
        assert torch.equal(dict(result.named_parameters())[name], before), name
    with transferred(model, "rescaled"):  # a model whose states are learned is still that model
        assert_finite(result(torch.randn(1, 1, 12, 20)), "logits")


def test_blocks_are_recomputed_with_the_same_condition():
    gradients = []
    for checkpointing in (False, True):
        spec = models.MixerSpec("ss2d")
        model = models.create("vit_nano", mixers=spec, **MODEL, checkpointing=checkpointing).eval()
        result = tuned(model, 3)
        with torch.no_grad():
            for state in result.states.values():
                state.fill_(0.5)
        result(noise(2, 1, 6, 10, seed=1), condition=torch.tensor([2, 1])).square().sum().backward()
        gradients.append([state.grad for state in result.states.values()])
    for plain, again in zip(*gradients, strict=True):
        assert torch.equal(plain, again)


@pytest.mark.parametrize("name", ["ss2d", "mamba3", "gated_deltanet"])
def test_mixed_precision(name):
    result, x = adapted(name).float(), image(3, 5, width=8).float()
    with torch.autocast("cpu", torch.bfloat16):
        y = result(x)
    assert_close(y.float(), result(x), 0.05, "y")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", ["ss2d", "gla", "deltanet"])
def test_compiled(name):
    result, x = adapted(name, 2), image(3, 5, width=8)
    compiled = torch.compile(result, backend="aot_eager")
    for condition in (torch.tensor([0, 1]), torch.tensor([1, 1])):
        assert_close(compiled(x, condition=condition), result(x, condition=condition), 1e-12, "y")


def test_what_cannot_be_tuned_is_refused():
    for name in ("linear_attention", "log_linear"):
        with pytest.raises(InputError, match=rf"^no recurrence of this model .* its mixers are: {name}$"):
            tuned(copy.deepcopy(MIXERS[name]))
    with pytest.raises(InputError, match="its mixers are: none"):
        tuned(torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match="conditions=0 must be an integer >= 1"):
        tuned(copy.deepcopy(MIXERS["mamba"]), 0)
    with pytest.raises(InputError, match="has learned states already"):
        tuned(adapted("mamba"))


def test_conditions_that_cannot_be_are_refused():
    result, x = adapted("mamba", 3), image(2, 2, width=8)
    for condition in (None, torch.tensor([0, 3]), torch.tensor([-1, 0]), torch.zeros(2), torch.zeros(2, 1).long()):
        with pytest.raises(InputError, match=r"^condition must .*(3 states|from 0 to 2)"):
            result(x, condition=condition)
    with pytest.raises(InputError, match="a batch of 2 needs a condition of as many, not one of 3"):
        result(x, condition=torch.zeros(3).long())
    with pytest.raises(InputError, match="from 0 to 0"):
        adapted("mamba")(x, condition=torch.ones(2).long())
    assert torch.equal(adapted("mamba")(x, condition=torch.zeros(2).long()), adapted("mamba")(x))


def test_a_backend_that_takes_no_state_says_so(monkeypatch):
    monkeypatch.setattr(operators.scan.cuda, "refusal", lambda device, dtype: None)
    cuda = torch.device("cuda")
    assert operators.scan.serving("cuda", cuda, torch.float32, states=True) == "chunked"
    with pytest.raises(InputError, match="cannot serve this scan: it takes no initial state"):
        operators.scan.serving("mamba_ssm", cuda, torch.float32, states=True)
