"""Every mixer, and the parameters that open other numerical paths through one."""

import operators
from operators.testing.cases import Case

PDE = (
    {"method": "separable"},
    {"method": "compiled"},
    {"method": "fft"},
    {"method": "compiled_fft"},
    {"method": "reference"},
    {"condition": "input"},
    {"condition": "cond", "method": "fft"},
    {"condition": "cond", "boundary": "neumann", "method": "separable"},
    {"tensor": "full", "boundary": "absorbing", "forcing": "constant"},
    {"terms": ["reaction"]},
)
OTHERS = (
    Case("attention", params={"rope": True, "qk_norm": True}),
    Case("mamba", params={"order": "hilbert", "conv": 3, "state_dim": 2}),
    Case("pom", params={"rope": True}),
)
CASES = (*map(Case, operators.names()), *(Case("pde_ssm", params=params) for params in PDE), *OTHERS)
