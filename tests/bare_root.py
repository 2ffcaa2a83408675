"""Runs commands in a bare Debian or Ubuntu that scripts/bare_root makes."""

import os
import shutil
import subprocess
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROXIES = ("http_proxy", "https_proxy", "no_proxy")
# The mounts are in a namespace of their own, so that they vanish with the command.
INSIDE = 'mount -t proc proc "$0/proc"; mount --rbind /dev "$0/dev"; exec "$@"'


def require(release):
    """Skips the test where no bare system of this release can be made."""
    if os.geteuid() != 0:
        raise unittest.SkipTest("debootstrap and chroot need root")
    if not shutil.which("debootstrap"):
        raise unittest.SkipTest("no debootstrap here")
    if not os.path.exists("/usr/share/debootstrap/scripts/" + release):
        raise unittest.SkipTest("this debootstrap does not know " + release)
    command = ["unshare", "--mount", "--propagation", "private", "true"]
    if subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
        raise unittest.SkipTest("no mount namespaces here")


class BareRoot:
    def __init__(self, release):
        require(release)
        self.folder = tempfile.mkdtemp(prefix="xlate-bare-")
        try:
            command = [os.path.join(ROOT, "scripts", "bare_root"), self.folder, release]
            made = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
            if made.returncode:
                raise unittest.SkipTest("no bare %s: %s" % (release, made.stderr[-2000:]))
            self.run(["update-ca-certificates"])
        except BaseException:
            self.remove()
            raise

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, command, cwd="/", environment=None, input=None):
        """Runs the command in the root and returns it finished. Its stdout and stderr are text."""
        variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        variables |= {"DEBIAN_FRONTEND": "noninteractive"}
        variables |= {name: os.environ[name] for name in PROXIES if name in os.environ}
        variables |= environment or {}
        chroot = ["chroot", self.folder, "env", "--chdir=" + cwd, *command]
        return subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "bash", "-ec", INSIDE]
            + [self.folder, *chroot],
            input=input or "",
            capture_output=True,
            text=True,
            env=variables,
            check=False,
        )

    def path(self, name):
        """Returns where a file of the root lies on the host."""
        return os.path.join(self.folder, name.lstrip("/"))
