"""What Vagrant says when it fails, and what that means for whoever has to mend it."""

from __future__ import annotations

import re

from pytest_kernelfs.errors import InfrastructureError, KernelfsError, ProviderUnavailable
from pytest_kernelfs.machines.verdict import tail

_SHOWN_LINES = 12
# Ruby's own account of where it was.
_TRACE = re.compile(r"^\s+from /|^/\S+\.rb:\d+:in `(?!.*\()")

# Pattern -> what to do; the first that matches is it. All but the last mean that this host lacks something.
_CAUSES = (
    (
        r"provider '(\S+)' could not be found|Vagrant has detected .*plugin.* not installed",
        "Vagrant has no plugin for that hypervisor; install it (Debian: apt-get install vagrant-libvirt; "
        "elsewhere: vagrant plugin install vagrant-libvirt)",
    ),
    (
        r"isn't usable on this system|VirtualBox is complaining|VBoxManage.*(not found|could not be found)",
        "the hypervisor itself is not installed, or cannot be used; install it, or choose another with "
        "--kernelfs-vagrant-hypervisor",
    ),
    (
        r"box '.*' could not be found|could not be found or\s+could not be accessed in the remote catalog|"
        r"couldn't be found.*box|Box '.*' could not be found|"
        r"box you're attempting to add doesn't (support|exist)|error occurred while downloading the remote",
        "there is no such box; check --kernelfs-vagrant-box ('vagrant box list' shows those here), or "
        "leave it out for the small box that is built from packages",
    ),
    (
        r"[Ee]rror while connecting to [Ll]ibvirt|Failed to connect socket|Cannot recv data|"
        r"End of file while reading data|client socket is closed",
        "libvirtd does not answer; start it (systemctl start libvirtd), see that you may use it ('virsh -c "
        "qemu:///system list', group libvirt), or name another one in LIBVIRT_DEFAULT_URI",
    ),
    (
        r"There is a syntax error in the following Vagrantfile|There was an error loading a Vagrantfile|"
        r"A Vagrant environment or target machine is required",
        "mend the Vagrantfile; with --kernelfs-vagrant-folder it is your own",
    ),
    (
        r"Could not open '[^']*': Permission denied|could not open kernel file|Cannot access storage file",
        "the hypervisor's own user may not read the kernel or the box; have TMPDIR name a folder that all "
        "may enter",
    ),
)
_NOT_UP = re.compile(r"Timed out while waiting for the machine to boot|ssh.*never (became|succeeded)")


def explain(command: str, printed: str, complaint: str) -> KernelfsError:
    """What to raise for a command that failed, from what it printed on standard output and error."""
    text = f"{printed}\n{complaint}"
    said = tail("\n".join(line for line in text.splitlines() if not _TRACE.match(line)), _SHOWN_LINES)
    for pattern, advice in _CAUSES:
        if re.search(pattern, text, re.DOTALL if "catalog" in pattern else 0):
            return ProviderUnavailable(f"'{command}' failed: {advice}. Vagrant said:\n{said}")
    if _NOT_UP.search(text):
        return InfrastructureError(
            f"'{command}' made a machine that ssh cannot reach: its kernel or its system did not come up. "
            f"Vagrant said:\n{said}"
        )
    return InfrastructureError(f"'{command}' failed. Vagrant said:\n{said}")
