"""Values that a setting cannot have: of the wrong kind, out of range, not finite, too large for any machine."""

# ruff: noqa: E501 - a row of the table is a line; odd characters are meant

from __future__ import annotations

from tests.hostile.case import FAILED, OK, REFUSED, Case, drawing, run

# A setting, and values that it must refuse before it takes memory or time.
_REFUSED = {
    "model.dim": ("10000000", "[16]"),
    "model.depth": ("1000000",),
    "model.patch": ("0", "[4,4]"),
    "model.hidden": ("1000000000000",),
    "model.checkpointing": ("maybe",),
    "model.match": ("5", "{params: 5X}", "{params: 1e30}"),
    "mixer": ("null",),
    "mixer.size": ("{a: 1}",),
    "mixer.backend": ("[auto]",),
    "shell.expand": ("nan", "1000000"),
    "shell.gate": ("{silu: 1}",),
    "data.batch_size": ("1000000000",),
    "data.num_workers": ("100000",),
    "data.resolution": ("100000", "[28,56]"),
    "data.root": ("[a]",),
    "data.augment": ("5",),
    "data.augment.mixup": ("inf",),
    "data.augment.randaugment": ("{ops: 1000000000, magnitude: 9}", "{op: 2}"),
    "data.augment.crop_pad": ("1000000",),
    "data.augment.flip": ("7",),
    "optimizer.lr": ("nan",),
    "optimizer.weight_decay": ("inf",),
    "optimizer.betas": ("5", "[0.9]", "[0.9,nan]"),
    "trainer.max_epochs": ("0.5", "-1"),
    "trainer.max_steps": ("-1",),
    "trainer.accelerator": ("cuda", "tpu"),
    "trainer.devices": ("99", "[0,0]"),
    "trainer.strategy": ("{ddp: 1}",),
    "trainer.precision": ("null",),
    "trainer.clip": ("nan",),
    "trainer.ema": ("nan",),
    "trainer.compile": ("5",),
    "trainer.limit_test_batches": ("0", "x"),
    "trainer.limit_val_batches": ("0",),
    "+trainer.limit_train_batches": ("0",),
    "+trainer.val_check_interval": ("0", "1000000"),
    "+trainer.check_val_every_n_epoch": ("0",),
    "+trainer.callbacks": ("[a]",),
    "+trainer.logger": ("evil",),
    "+trainer.profiler": ("evil",),
    "+trainer.plugins": ("x",),
    "+trainer.max_time": ("soon",),
    "+trainer.gradient_clip_algorithm": ("x",),
    "+trainer.num_sanity_val_steps": ("-2",),
    "+trainer.reload_dataloaders_every_n_epochs": ("-1",),
    "+trainer.default_root_dir": ("[a]",),
    "+trainer.deterministic": ("perhaps",),
    "+trainer.nothing": ("1",),
    "task": ("null",),
    "seed": ("18446744073709551616", "null"),
}  # fmt: skip
# The same for a generator.
_REFUSED_DRAWING = {
    "task.bins": ("1000000000",),
    "task.network": ("/etc/passwd",),
    "task.judge": ("5",),
    "task.autoencoder": ("/etc", "''", "5"),
    "sample.n": ("1000000000000",),
    "sample.guidance": ("nan",),
    "sample.interval": ("[1.0,0.0]", "x"),
    "sample.solver": ("[euler]",),
    "sample.classes": ("3", "{a: 1}", "[[1]]"),
}
# A mixer, and settings of its own that it must refuse.
_MIXERS = {
    "attention": ("mixer.heads=5", "mixer.heads=1000000000", "mixer.rope=x"),
    "mamba": ("mixer.state_dim=0", "mixer.state_dim=100000000", "mixer.order=zigzag", "mixer.conv=-1"),
    "ss2d": ("mixer.orders=[]", "mixer.orders=5", "mixer.orders=[zigzag]", ),
    "pom": ("mixer.degree=1000000", "mixer.clamp=[6.0,-0.1]", "mixer.clamp=[a]"),
    "conv": ("mixer.kernel=100001",),
    "random": ("mixer.backend=xformers",),
    "hybrid": (
        "mixer.pattern=[]", "mixer.pattern=[hybrid]", "mixer.params={attention: {heds: 1}}",
        "mixer.params={pool: 5}", "mixer.params={nothing: {a: 1}}",
    ),
    "pde_ssm": (
        "pde=5", "pde.terms=5", "pde.terms={diffusion: 1}",
        "pde.state=1000000000", "pde.condition=input & pde.groups=7", "pde.condition=cond",
        "pde.coefficients={difusion: learned}", "pde.coefficients=[learned]", "pde.method=[fft]",
        "pde.tensor=full & pde.method=separable", "pde.terms=[convection] & pde.tensor=full",
        "pde.forcing=steady & pde.terms=[diffusion]", "pde.terms=[diffusion,diffusion]",
    ),
}  # fmt: skip
CASES = [
    *(
        # What takes memory or processes is soon stopped.
        Case(f"{key}={value}", run(f"{key}={value}"), seconds=40.0 if key in ("model.depth", "data.num_workers") else 120.0)
        for key, values in _REFUSED.items()
        for value in values
    ),
    *(Case(f"{key}={v}", drawing(f"{key}={v}")) for key, values in _REFUSED_DRAWING.items() for v in values),
    *(
        Case(f"{mixer} {words}", run(f"mixer={mixer}", *words.split(" & ")))
        for mixer, settings in _MIXERS.items()
        for words in settings
    ),
    # Nothing is wrong with these but the size of what they ask for; they must be refused, or fail in one line.
    Case("guidance 1e38", drawing("sample.guidance=1e38", "trainer.test=true"), allowed=(OK, FAILED, REFUSED)),
    Case("decay 1e30", run("optimizer.weight_decay=1e30"), allowed=(OK, FAILED, REFUSED)),
    Case("absorbing diverges", run("mixer=pde_ssm", "pde.boundary=absorbing", "optimizer.lr=1e20", "trainer.clip=0"),
         allowed=(FAILED,), says="diverged"),
    Case("periodic diverges", run("mixer=pde_ssm", "optimizer.lr=1e20", "trainer.clip=0"), allowed=(FAILED,), says="diverged"),
    Case("epochs without end", run("trainer.max_epochs=null", "trainer.max_steps=null")),
    Case("18 digits of epochs", run("trainer.max_epochs=1000000000000000000"), allowed=(OK,)),
    Case("precision bf16-true", run("trainer.precision=bf16-true"), allowed=(OK, REFUSED)),
    Case("precision 64-true", run("trainer.precision=64-true"), allowed=(OK, REFUSED)),
    Case("precision 16-true on a CPU", run("trainer.precision=16-true"), allowed=(OK, FAILED, REFUSED)),
    Case("precision 16-mixed on a CPU", run("trainer.precision=16-mixed"), allowed=(OK, FAILED, REFUSED)),
    Case("strategy fsdp on a CPU", run("trainer.strategy=fsdp"), allowed=(OK, REFUSED)),
    Case("barebones", run("+trainer.barebones=true"), allowed=(OK, REFUSED)),
    Case("fast_dev_run", run("+trainer.fast_dev_run=true"), allowed=(OK, REFUSED)),
    Case("no checkpointing", run("+trainer.enable_checkpointing=false"), allowed=(OK, REFUSED)),
    Case("no time at all", run("+trainer.max_time='00:00:00:00'"), allowed=(OK, REFUSED)),
    Case("plan of a wide model", run("mode=plan", "model.dim=10000000"), allowed=(OK, REFUSED)),
    Case("plan of a deep model", run("mode=plan", "model.depth=1000000"), allowed=(OK, REFUSED)),
    Case("plan of a large image", run("mode=plan", "data.resolution=100000"), allowed=(OK, REFUSED)),
    Case("plan of a large batch", run("mode=plan", "data.batch_size=1000000000"), allowed=(OK, REFUSED)),
    Case("plan without speed", run("mode=plan", "plan.peak_tflops=0", "plan.bandwidth=100")),
    Case("plan of no number", run("mode=plan", "plan.peak_tflops=nan", "plan.bandwidth=100")),
    Case("plan null", run("mode=plan", "plan=null")),
    Case("classes of a classifier", run("sample.classes=[1]")),
    Case("a device that is missing", run("trainer.accelerator=gpu", "trainer.devices=4")),
    Case("two devices and one process a run", "run.py --multirun trainer.devices=2 seed=0,1", lines=2),
]  # fmt: skip
