"""What fixtures are given wrongly is an error that names it, and not a failure of the kernel."""

from __future__ import annotations

from .conftest import Runner


def test_assertions_name_what_they_cannot_judge(run: Runner) -> None:
    source = """
        import pytest
        from pytest_kernelfs.errors import UsageError

        @pytest.mark.parametrize("use, said", [
            ("assert_umount_under(1, '/mnt')", "assert_umount_under: '/mnt' is no mount"),
            ("assert_umount_under('1s', mount)", "assert_umount_under: '1s' is no number of seconds"),
            ("assert_no_dstate(longer_than='1s')", "longer_than: '1s' is no number of seconds"),
            ("assert_rtt_under(1, 'pair')", "assert_rtt_under: 'pair' is no pair"),
            ("assert_dmesg_clean(since='x')", "assert_dmesg_clean: since='x' is no number of a record"),
            ("record_measurement(5)", "record_measurement: 5 is no Measurement"),
            ("probes.sampling('psi', interval='1s').__enter__()", "interval: '1s' is no number of seconds"),
            ("writeback.settle(timeout='1s')", "settle: timeout: '1s' is no number of seconds"),
            ("kernel.version.matches(6.1)", "the kernel constraint 6.1 is no text"),
        ])
        def test_it(
            use, said, kernel, kernelfs_resources, assert_umount_under, assert_no_dstate, assert_rtt_under,
            assert_dmesg_clean, record_measurement, probes, writeback,
        ):
            from pytest_kernelfs.resources.mount import Mount

            mount = Mount(kernelfs_resources, "/mnt/a", "/mnt/a", None)
            with pytest.raises(UsageError) as caught:
                eval(use)
            assert said in caught.value.message
        """
    run(source, "--kernel", "6.1").assert_outcomes(passed=9)


def test_they_are_errors_not_failures(run: Runner) -> None:
    result = run("def test_it(vm): vm.run(['sleep', 1])", "--kernel", "6.1")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*UsageError: vm.run: 1 (int) is no text"])
