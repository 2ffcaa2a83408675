"""Knows where the programs, the models and the reference data of the acceptance of a GPU are
(gpu_acceptance.py), and runs programs with them."""

import os
import re
import signal
import subprocess
import sys

TESTS = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(TESTS)


def too_long(seconds):
    return "still running after %.0f s" % seconds


class Place:
    """Knows where the programs and the models are, and the environment of every test."""

    def __init__(self, given, folder):
        self.folder, self.device = folder, given.device
        binaries = given.binaries or os.path.join(ROOT, "build")
        self.xlate, self.tests = (
            self.find(binaries, ("", "bin"), name) for name in ("xlate", "xlate_tests")
        )
        self.models = os.path.join(folder, "models")
        os.mkdir(self.models)
        # A test runs as another user than the one whose folder this is.
        os.chmod(folder, 0o755)
        for name in ("shared", "separate"):
            self.provide(binaries, name, "opus-shape")
        self.provide(binaries, "t5", "families")
        self.reference = os.path.abspath(
            os.environ.get("XLATE_REFERENCE_DIR") or os.path.join(ROOT, "..", "shared")
        )
        self.environment = {
            **os.environ,
            "XLATE_BINARY": self.xlate,
            "XLATE_TEST_MODELS": self.models,
            "XLATE_SOURCE_DIR": ROOT,
            "XLATE_TEST_TIMEOUT": "400",
            "XLATE_REFERENCE_DIR": self.reference,
            "XLATE_TEST_DEVICE": self.device,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        # scripts/package puts the libraries into lib/xlate.
        folders = [os.path.abspath(os.path.join(binaries, "lib", name)) for name in ("", "xlate")]
        if given.binaries and os.path.isdir(folders[0]):
            self.environment["LD_LIBRARY_PATH"] = ":".join(
                filter(None, [*folders, os.environ.get("LD_LIBRARY_PATH")])
            )
        self.environment.pop("XLATE_LONG", None)

    @staticmethod
    def find(binaries, folders, name):
        paths = [os.path.abspath(os.path.join(binaries, folder, name)) for folder in folders]
        found = next((path for path in paths if os.path.isfile(path)), None)
        return found or sys.exit("gpu_acceptance: %s is not there" % " or ".join(paths))

    def provide(self, binaries, name, checkpoint):
        """Makes a model available in `models`. It is converted where it is not among what was built
        elsewhere."""
        wanted = os.path.join(self.models, name + ".bin")
        for folder in ("", "test_models"):
            path = os.path.abspath(os.path.join(binaries, folder, name + ".bin"))
            if os.path.isfile(path):
                return os.symlink(path, wanted)
        converter = os.path.join(ROOT, "scripts", "convert.py")
        folder = os.path.join(TESTS, "data", checkpoint, name)
        subprocess.run([sys.executable, converter, folder, "-q", "-o", wanted], check=True)

    def prepare(self):
        """Converts the models that several checks would otherwise convert at once."""
        if self.environment.get("XLATE_ENDE_BASE") or not os.path.isdir(
            os.path.join(self.reference, "models", "ende-base")
        ):
            return
        script = 'import reference_test; print(reference_test.converted("ende-base"))'
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=TESTS,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            sys.exit("gpu_acceptance: ende-base could not be converted")
        self.environment["XLATE_ENDE_BASE"] = done.stdout.strip().split("\n")[-1]

    def lacks(self, *needs):
        """Returns the name of a missing file of the reference data, or says that there is no
        ende-base."""
        missing = [
            path
            for path in needs
            if not os.path.isfile(os.path.join(self.reference, *path.split("/")))
        ]
        return (
            "no %s in XLATE_REFERENCE_DIR" % missing[0]
            if missing
            else None
            if self.environment.get("XLATE_ENDE_BASE")
            else "no ende-base (XLATE_ENDE_BASE)"
        )

    def run(self, command, seconds, **environment):
        """Returns (exit code or None where it took too long, output)."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output = process.communicate(timeout=seconds)[0]
            code = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, code = process.communicate()[0], None
        return code, output.decode("utf-8", "replace")

    def suite(self, file, seconds, *arguments, precision="fp32", **environment):
        """Runs a Python suite. Returns its own figures, or what unittest says."""
        code, output = self.run(
            [sys.executable, os.path.join(TESTS, file), "-v", *arguments],
            seconds,
            XLATE_TEST_PRECISION=precision,
            **environment,
        )
        if code is None:
            return False, too_long(seconds), output
        figures, said = (
            re.findall(r"^figure: (.*)$", output, re.M),
            re.findall(r"^(?:Ran .*|FAILED.*)$", output, re.M),
        )
        ran, skipped = (
            re.search(r"^Ran (\d+) test", output, re.M),
            re.search(r"^(?:OK|NO TESTS RAN) \(skipped=(\d+)\)", output, re.M),
        )
        if ran and skipped and int(ran[1]) <= int(skipped[1]):
            return (
                None,
                "; ".join(re.findall(r'skipped [\'"](.*?)[\'"]$', output, re.M)) or skipped[0],
                output,
            )
        return code == 0, "; ".join(figures or said), output
