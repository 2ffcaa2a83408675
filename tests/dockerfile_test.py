#!/usr/bin/env python3
"""Tests scripts/docker/Dockerfile. The long test carries out its steps in bare systems, which stand
for its images, since a machine for tests seldom has Docker."""

import json
import os
import re
import shutil
import subprocess
import unittest

from bare_root import ROOT, BareRoot

DOCKERFILE = os.path.join(ROOT, "scripts", "docker", "Dockerfile")
RELEASE = "bookworm"


def steps():
    """Returns the (instruction, rest) of the Dockerfile in order."""
    with open(DOCKERFILE, encoding="utf-8") as file:
        lines = [line for line in file.read().split("\n") if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(" ", 1)) for line in joined.split("\n") if line]


class Dockerfile(unittest.TestCase):
    maxDiff = None

    def test_it_has_only_instructions_that_this_test_knows(self):
        known = {"ARG", "FROM", "COPY", "WORKDIR", "RUN", "ENV", "ENTRYPOINT", "CMD"}
        self.assertEqual({instruction for instruction, _ in steps()} - known, set())
        images = [rest for instruction, rest in steps() if instruction == "FROM"]
        self.assertEqual(len(images), 2)
        self.assertEqual(dict(steps())["ARG"], "RUN_IMAGE=debian:bookworm-slim")

    def copy(self, rest, root, stages):
        """Does what COPY does, for the forms that the Dockerfile uses."""
        if rest.startswith("--from="):
            stage, source, target = rest[len("--from=") :].split()
            shutil.copy(stages[stage].path(source), root.path(target))
            return
        source, target = rest.split()
        self.assertEqual(source, ".")
        # The files of git are what .dockerignore leaves.
        listed = subprocess.run(
            ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=True
        ).stdout.decode()
        for name in filter(None, listed.split("\0")):
            place = os.path.join(root.path(target), name)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            shutil.copy(os.path.join(ROOT, name), place, follow_symlinks=False)

    @unittest.skipUnless(os.environ.get("XLATE_LONG"), "a long test")
    def test_its_steps_give_an_image_that_translates(self):
        stages, root, folder, environment = {}, None, "/", {}
        for instruction, rest in steps():
            with self.subTest(instruction + " " + rest):
                if instruction == "FROM":
                    root, folder, environment = BareRoot(RELEASE), "/", {}
                    self.addCleanup(root.remove)
                    stages[rest.split()[-1]] = root
                elif instruction == "COPY":
                    self.copy(rest, root, stages)
                elif instruction == "WORKDIR":
                    folder = rest
                    os.makedirs(root.path(folder), exist_ok=True)
                elif instruction == "ENV":
                    environment |= dict([rest.split("=")])
                elif instruction == "RUN":
                    done = root.run(["sh", "-c", rest], folder, environment)
                    self.assertEqual(done.returncode, 0, (done.stdout + done.stderr)[-5000:])
        image = dict(steps())
        entry = json.loads(image["ENTRYPOINT"])
        shown = root.run(entry + json.loads(image["CMD"]), folder, environment)
        self.assertIn("--beam-size", shown.stdout, shown.stderr)
        with open(os.path.join(ROOT, "data", "sample.en"), encoding="utf-8") as file:
            sample = file.read()
        command = [*entry, "-m", "/usr/share/xlate/en-de.bin", "-b", "1"]
        result = root.run(command, folder, environment, input=sample)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stdout.count("\n"), sample.count("\n"))
        self.assertIn("ü", result.stdout)


if __name__ == "__main__":
    unittest.main()
