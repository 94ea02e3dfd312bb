"""What is made of Vagrant's complaints: its own words, as seen, and what to do."""

from __future__ import annotations

import pytest

from pytest_kernelfs.errors import InfrastructureError, ProviderUnavailable
from pytest_kernelfs.machines.vagrant.complaint import explain

NO_PLUGIN = """The provider 'libvirt' could not be found, but was requested to
back the machine 'default'. Please use a provider that exists.

Vagrant knows about the following providers: virtualbox, docker, hyperv
"""
NO_VIRTUALBOX = """The provider 'virtualbox' that was requested to back the machine
'default' is reporting that it isn't usable on this system. The
reason is shown below:

Vagrant could not detect VirtualBox! Make sure VirtualBox is properly installed.
"""
NO_BOX = """The box 'nobody/x' could not be found or
could not be accessed in the remote catalog. If this is a private
box on HashiCorp's Vagrant Cloud, please verify you're logged in via
`vagrant login`. Also, please double-check the name. The expanded
URL and error message are shown below:

URL: ["https://vagrantcloud.com/api/v2/vagrant/nobody/x"]
Error: Could not resolve host: vagrantcloud.com
"""
NO_DAEMON = """Error while connecting to Libvirt: Error making a connection to libvirt URI qemu:///system:
Call to virConnectOpen failed: Failed to connect socket to '/var/run/libvirt/libvirt-sock': Connection refused
"""
TRACE = """==> default: Starting domain.
/usr/lib/ruby/fog/vm_action.rb:7:in `create': Call to virDomainCreate failed: no space (Libvirt::Error)
\tfrom /usr/lib/ruby/vendor_ruby/fog/libvirt/requests/compute/vm_action.rb:7:in `vm_action'
\tfrom /usr/lib/ruby/vendor_ruby/fog/libvirt/models/compute/server.rb:80:in `start'
"""
TOO_LATE = """Timed out while waiting for the machine to boot. This means that
Vagrant was unable to communicate with the guest machine within
the configured ("config.vm.boot_timeout" value) time period.
"""


@pytest.mark.parametrize(
    ("complaint", "advice"),
    [
        (NO_PLUGIN, "Vagrant has no plugin for that hypervisor; install it"),
        (NO_VIRTUALBOX, "the hypervisor itself is not installed"),
        (NO_BOX, "there is no such box; check --kernelfs-vagrant-box"),
        (NO_DAEMON, "libvirtd does not answer; start it"),
    ],
)
def test_what_this_host_lacks_is_named(complaint: str, advice: str) -> None:
    error = explain("vagrant up", "", complaint)
    assert isinstance(error, ProviderUnavailable)
    assert advice in str(error)
    assert complaint.splitlines()[-1].strip() in str(error)


def test_any_other_failure_is_shown_without_rubys_trace() -> None:
    error = explain("vagrant up", TRACE, "")
    assert isinstance(error, InfrastructureError)
    assert "virDomainCreate failed: no space" in str(error)
    assert "\tfrom" not in str(error)
    assert "server.rb" not in str(error)


def test_a_machine_that_ssh_cannot_reach_did_not_come_up() -> None:
    error = explain("vagrant up", "", TOO_LATE)
    assert isinstance(error, InfrastructureError)
    assert "its kernel or its system did not come up" in str(error)
