"""Flow matching (arXiv 2210.02747, 2209.03003, 2401.08740) as pure functions.

Time runs from noise, t = 0, to data, t = 1; x_t = α(t)·data + σ(t)·noise, velocity = α'(t)·data + σ'(t)·noise.
A `Model` maps (x_t, t, label) to its prediction, one of velocity, data and noise. Training draws times (`times`) and
noise (`noise`) and minimises `loss`; sampling turns the model into a velocity (`prediction.velocity_model`), guides it
(`guidance`) and integrates it (`solvers`). No global generator is read anywhere: callers pass the random numbers.
"""
