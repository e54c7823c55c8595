"""Tasks: data, LightningModules, and `execute`, the one function that carries out a run.

config = tasks.config.composition.compose(["mixer=attention", "trainer.max_epochs=3"])
metrics = tasks.run.execute.execute(config, Path("outputs/mine"))
"""
