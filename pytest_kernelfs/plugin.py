"""pytest's hooks, each a few lines that call a room below; nothing heavy is imported before it is needed."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_kernelfs import config as options
from pytest_kernelfs import news, providers
from pytest_kernelfs.errors import KernelfsError
from pytest_kernelfs.fixtures import *  # noqa: F403  (fixtures are found in the plugin's module)
from pytest_kernelfs.fixtures import machines
from pytest_kernelfs.fixtures.machines import FAILED, RESOURCES, RUN, UPCOMING
from pytest_kernelfs.report.newsreader import Newsreader
from pytest_kernelfs.resources.unfinished import SetUp
from pytest_kernelfs.run import Run, Upcoming

if TYPE_CHECKING:
    import pluggy

    from pytest_kernelfs.kernels import Candidate
    from pytest_kernelfs.machines.machine import MachineSpec, MakeProvider
    from pytest_kernelfs.needs.items import Needs

_WORKER_INPUT = "kernelfs"
_UNRESOLVED = "unresolved"
_MARKERS_READ = pytest.StashKey[bool]()
_NEEDS = pytest.StashKey["Needs"]()

_MARKERS = (
    'kernel(constraint): run only on kernels that match, such as ">=5.10,<6.0"; skipped on others',
    'kernel_needs(need, ...): what the kernel must have, such as "overlay:volatile"; skipped on others',
    'kernel_xfail(constraint, *, reason): expected to fail on kernels that match, "<5.10"; "" matches all',
    'isolation(scope): which tests share the machine: "test", "class", "module" or "session"',
    'vm(memory, cpus, boot_parameters): the machine the test needs, such as vm(memory="2G", cpus=4)',
    "checks(dmesg, taint, leaks, fsck): switch off checks after the test, such as checks(leaks=False)",
    "dmesg_allow(pattern, ...): regular expressions for lines of the kernel log that the test may cause",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from pytest_kernelfs import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_kernelfs_providers(config: pytest.Config) -> Mapping[str, MakeProvider]:
    return providers.ours(config.stash[RUN].config.providers)


def pytest_configure(config: pytest.Config) -> None:
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    try:
        settings = options.read(config)
    except KernelfsError as error:
        raise pytest.UsageError(str(error)) from None
    worker = getattr(config, "workerinput", {})
    choose = partial(_chosen_provider, config, settings.provider)
    run = Run(settings, choose, worker.get(_WORKER_INPUT), worker.get("testrunuid", ""))
    config.stash[RUN] = run
    if not _is_worker(config):
        config.pluginmanager.register(MatrixReporter(run), "kernelfs-matrix")
    config.pluginmanager.register(Newsreader(config), "kernelfs-news")
    if config.inipath is None and not _is_worker(config):
        from pytest_kernelfs.report.lost_ini import lost_ini

        lost = lost_ini(config.invocation_params.args, config.invocation_params.dir)
        if lost:
            news.tell(lost)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Check kernels typed on the command line before all else, and fetch them at once for xdist's workers."""
    run = session.config.stash[RUN]
    with _usage_errors():
        run.check_provider()
    if not run.config.explicit or _is_worker(session.config):
        return
    with _usage_errors():
        candidates = run.resolve()
        if _is_xdist_controller(session.config):
            _fetch(session.config, candidates)


def pytest_report_header(config: pytest.Config) -> list[str]:
    from pytest_kernelfs.report.header import header_lines

    run = config.stash[RUN]
    return header_lines(run) if run.config.explicit else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that reaches ``kernel``, itself or through another fixture, once for each kernel."""
    if not _means_our_kernel(metafunc):
        return
    run = metafunc.config.stash[RUN]
    try:
        ids = run.ids
    except KernelfsError as error:
        metafunc.parametrize("kernel", [error], ids=[_UNRESOLVED], indirect=True, scope="session")
        return
    metafunc.parametrize("kernel", list(ids.values()), ids=list(ids), indirect=True, scope="session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = [(item, candidate) for item in items if (candidate := _candidate(item)) is not None]
    if ours:
        with _usage_errors():
            _read_markers(config.stash[RUN], ours)
    config.stash[_MARKERS_READ] = True


def _read_markers(run: Run, items: list[tuple[pytest.Item, Candidate]]) -> None:
    from pytest_kernelfs.markers import apply_markers, check_markers
    from pytest_kernelfs.needs.implied import add_implied
    from pytest_kernelfs.needs.items import read_needs
    from pytest_kernelfs.report.results import KERNEL_PROPERTY

    lifted = run.provider.userland() == ""
    for item, candidate in items:
        apply_markers(item, candidate)
        check_markers(item, run.machine_spec)
        add_implied(item)
        read_needs(item, lifted=lifted)
        item.user_properties.append((KERNEL_PROPERTY, run.id_of(candidate)))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch what the selected tests need before the first of them starts; say what cannot be had at once.

    Then skip those of which the kernel's files, or an earlier run, tell that they need what is not there.
    """
    config = session.config
    # pytest calls this also when the collection failed.
    if config.option.collectonly or not config.stash.get(_MARKERS_READ, False):
        return
    if not _is_worker(config):
        _fetch_needed(session)
    items = [item for item in session.items if _candidate(item) is not None]
    if items:
        _needs(config).mark(items)


def _fetch_needed(session: pytest.Session) -> None:
    parameters = [_kernel_parameter(item) for item in session.items]
    needed = dict.fromkeys(parameter for parameter in parameters if parameter is not None)
    with _usage_errors():
        for parameter in needed:
            if isinstance(parameter, KernelfsError):
                raise parameter
        if needed:
            kernels = [parameter for parameter in needed if not isinstance(parameter, KernelfsError)]
            _fetch(session.config, kernels)


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """For kernels that were not typed on the command line, say now which they are."""
    from pytest_kernelfs.report.header import header_lines

    run = config.stash[RUN]
    return header_lines(run) if run.resolved_already and not run.config.explicit else []


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Note what comes next, so that machines for it can be prepared while this test runs."""
    following = [nextitem] if nextitem is not None and _wants_machine(nextitem) else []
    if following and not _is_worker(item.config):
        after = item.session.items.index(following[0]) + 1
        following += item.session.items[after : after + 1]
    item.stash[UPCOMING] = [
        Upcoming(wanted[0], wanted[1], next_.getparent(pytest.Module) is item.getparent(pytest.Module))
        for next_ in following
        if (wanted := _wants_machine(next_)) is not None
    ]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Settle what the test needs, after pytest's own skips and before its fixtures."""
    if _candidate(item) is None:
        return
    from pytest_kernelfs.report.results import forget_attempt

    forget_attempt(item)
    if RESOURCES in item.stash:
        del item.stash[RESOURCES]  # an earlier attempt's, whose machine is gone
    if not item.config.getoption("setupplan", False):
        _needs(item.config).settle(item)


# An error of the fixture must not pass through here: it would seem to be one of ours.
@pytest.hookimpl(hookwrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, pluggy.Result[Any], None]:
    setting_up = SetUp(fixturedef.addfinalizer)
    outcome = yield
    setting_up.over(failed=outcome.excinfo is not None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    from pytest_kernelfs.report import verdicts

    if call.excinfo is not None:
        verdicts.hide_our_frames(call.excinfo)
    report = yield
    if call.excinfo is not None:
        verdicts.judge(report, call.excinfo.value, require=item.config.stash[RUN].config.require)
        item.stash[FAILED] = report.failed or hasattr(report, "wasxfail")
    if RESOURCES in item.stash:
        from pytest_kernelfs.bundle.keeper import attend

        attend(item, call, report)
    return report


def pytest_report_teststatus(report: pytest.CollectReport | pytest.TestReport) -> tuple[str, str, str] | None:
    from pytest_kernelfs.report import verdicts

    return verdicts.status(report)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Before an xdist worker starts: tell it which kernels this run is about, so that all agree."""
    node.workerinput[_WORKER_INPUT] = node.config.stash[RUN].hand_down()


def pytest_unconfigure(config: pytest.Config) -> None:
    run = config.stash.get(RUN, None)
    if run is None:
        return
    ends_already = sys.exc_info()[1] is not None
    try:
        with _usage_errors():
            run.close()
    except pytest.UsageError as error:
        if not ends_already:
            raise
        sys.stderr.write(f"ERROR: {error}\n")  # the error that ends the run is the one to be told


class MatrixReporter:
    """Collects results, in the process that owns the terminal, and writes the matrix at the end."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._results = run.results
        self._artifacts: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        from pytest_kernelfs.report.results import artifacts_of

        self._results.add(report)
        self._artifacts.update(artifacts_of(report))

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._results:
            return
        from pytest_kernelfs.report.header import legend
        from pytest_kernelfs.report.repeats import write_repeats
        from pytest_kernelfs.report.terminal import write_matrix

        write_repeats(terminalreporter)
        write_matrix(terminalreporter, self._results, legend(self._run))
        if self._artifacts:
            count = f"{len(self._artifacts)} test{'' if len(self._artifacts) == 1 else 's'}"
            terminalreporter.write_line(f"artifacts of {count}: {self._run.config.artifacts}")


def _chosen_provider(config: pytest.Config, name: str) -> MakeProvider:
    try:
        offered = config.hook.pytest_kernelfs_providers(config=config)
    except KernelfsError:
        raise
    except Exception as error:
        from pytest_kernelfs.machines.foreign import mistake

        raise mistake("a plugin's hook pytest_kernelfs_providers", error) from error
    return providers.choose(name, offered)


def _means_our_kernel(metafunc: pytest.Metafunc) -> bool:
    """Whether the test reaches our fixture ``kernel``, not a parameter or fixture of its own of that name."""
    definitions = getattr(metafunc, "_arg2fixturedefs", {}).get("kernel", ())
    ours = [definition.func.__module__ == machines.__name__ for definition in definitions]
    return any(ours) and (ours[-1] or "kernel" in definitions[-1].argnames)


def _wants_machine(item: pytest.Item) -> tuple[Candidate, MachineSpec] | None:
    """Kernel and size of the machine that a test will ask for, if it is to have one of its own."""
    if "vm" not in getattr(item, "fixturenames", ()):
        return None
    from pytest_kernelfs.markers import is_left_out, isolation_of, machine_spec_of
    from pytest_kernelfs.needs.items import is_unmet

    if is_unmet(item) or is_left_out(item):
        return None
    run = item.config.stash[RUN]
    candidate = _candidate(item)
    try:
        alone = isolation_of(item, run.isolation) == "test"
        return (candidate, machine_spec_of(item, run.machine_spec)) if alone and candidate else None
    except KernelfsError:
        return None  # told when it is that test's turn


def _candidate(item: pytest.Item) -> Candidate | None:
    parameter = _kernel_parameter(item)
    return None if isinstance(parameter, KernelfsError) else parameter


def _kernel_parameter(item: pytest.Item) -> Any:
    """What ``pytest_generate_tests`` gave the item: a candidate, an error, or None without a kernel."""
    callspec = getattr(item, "callspec", None)
    parameter = callspec.params.get("kernel") if callspec is not None else None
    if parameter is None or isinstance(parameter, KernelfsError):
        return parameter
    from pytest_kernelfs.kernels import Candidate

    return parameter if isinstance(parameter, Candidate) else None


def _needs(config: pytest.Config) -> Needs:
    if _NEEDS not in config.stash:
        from pytest_kernelfs.needs.items import Needs

        config.stash[_NEEDS] = Needs(config.stash[RUN], _candidate)
    return config.stash[_NEEDS]


def _fetch(config: pytest.Config, candidates: list[Candidate]) -> None:
    from pytest_kernelfs.report.progress import shown_progress

    with shown_progress(sys.stderr) as progress:
        config.stash[RUN].fetch_all(candidates, progress)


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Turn an error of ours into pytest's own: one line and exit code 4, no traceback."""
    try:
        yield
    except KernelfsError as error:
        raise pytest.UsageError(f"kernelfs: {error}") from None


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _is_xdist_controller(config: pytest.Config) -> bool:
    return config.pluginmanager.hasplugin("dsession")
