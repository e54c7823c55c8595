"""Sessions: `nox` runs lint, typecheck and tests; `nox -s slow` the long ones.

`nox -s readme` checks the README, `nox -s docs` builds the site.
"""

import nox

nox.options.sessions = ["lint", "typecheck", "tests"]
nox.options.default_venv_backend = "venv"


def _install(session: nox.Session) -> None:
    session.install("-e", ".[test]")


@nox.session(python="3.11")
def tests(session: nox.Session) -> None:
    """The test suite, as continuous integration runs it."""
    _install(session)
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session(python="3.11")
def slow(session: nox.Session) -> None:
    """Full option products, inductor, training thresholds, the site."""
    session.install("-e", ".[docs,ray,test]")
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session(python="3.11")
def coverage(session: nox.Session) -> None:
    """Line coverage of the operators, at least 95 %."""
    _install(session)
    session.run("pytest", "tests/operators", "--cov=operators", "--cov-report=term-missing", "--cov-fail-under=95")


@nox.session(python="3.11")
def lint(session: nox.Session) -> None:
    """Ruff's rules and format; imports that run up or in circles, folders that are full."""
    _install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("python", "-m", "tests.structure")


@nox.session(python="3.11")
def typecheck(session: nox.Session) -> None:
    """Mypy, strict, on what is shipped."""
    _install(session)
    session.run("mypy")


@nox.session(python="3.11")
def readme(session: nox.Session) -> None:
    """The README's snippets and main command."""
    _install(session)
    session.run("pytest", "tests/test_readme.py", *session.posargs)


@nox.session(python="3.11")
def docs(session: nox.Session) -> None:
    """The site, offline and without warnings, into site/; then its links."""
    session.install("-e", ".[docs]")
    session.run("mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})
    session.run("python", "docs/_site/links.py", "site")
