"""Tests what scripts/plot does with reports that lack fields, and with other JSON: it draws what it
can, or says in one line which field of which file is wrong."""

import copy
import importlib.machinery
import importlib.util
import json
import os
import random
import shutil
import sys
import tempfile
import unittest

from plot_test import report
from program import ROOT

sys.path.insert(0, os.path.join(ROOT, "scripts"))
sys.dont_write_bytecode = True

import report_figures as figures

SEED = int(os.environ.get("XLATE_TEST_SEED", 21))
MATPLOTLIB = importlib.util.find_spec("matplotlib")
ANYTHING = (None, "", "x", [], [[1]], {}, {"a": {}}, True, -1, 0, 5e-324, 1e300, 10**400)
ANYTHING += (float("nan"), float("inf"), "\ud800", "$x$ $\\foo$")


def load_script(name):
    loader = importlib.machinery.SourceFileLoader(name, os.path.join(ROOT, "scripts", name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


def whole():
    """Returns a report that has all that can be drawn."""
    value = report()
    value["latency_ms"] = {"p50": 9.9, "p90": 10, "p99": 10.1, "max": 10.1}
    value["latency_ms"]["histogram"] = [{"from": 9.4, "to": 10.1, "lines": 3}]
    return value


def sweep():
    points = [{"beam": beam, "tokens_per_second": 1e6 / beam} for beam in (1, 2, 4)]
    return {"axes": {"beam": points, "memory": [{"memory": "8GiB"}]}}


def places_in(value, before=()):
    """Returns the path of every value in JSON, as the keys that lead there."""
    inside = enumerate(value) if isinstance(value, list) else ()
    inside = value.items() if isinstance(value, dict) else inside
    below = [place for key, child in inside for place in places_in(child, (*before, key))]
    return [before, *below] if before else below


def changed(value, place, new=None, remove=False):
    value = copy.deepcopy(value)
    within = value
    for key in place[:-1]:
        within = within[key]
    within[place[-1]] = new
    if remove:
        del within[place[-1]]
    return value


class Fields(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="xlate-plot-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.plot = load_script("plot")

    def draw(self, *values, extension=".html"):
        """Draws reports into a page or a picture. Returns what the script says of an error, without
        the names of the script and of the file, or an empty text."""
        paths = []
        for place, value in enumerate(values):
            paths.append(os.path.join(self.folder, "%d $\\a$.json" % place))
            with open(paths[-1], "w") as file:
                file.write(value if isinstance(value, str) else json.dumps(value))
        try:
            self.plot.main([*paths, "-o", os.path.join(self.folder, "out" + extension)])
        except SystemExit as error:
            said, begin = str(error.code), "plot: %s: " % paths[0]
            self.assertEqual((said[: len(begin)], said.count("\n")), (begin, 0), said)
            return said[len(begin) :]
        return ""

    def test_any_field_may_be_missing_or_null(self):
        value = whole()
        for place in places_in(value):
            if any(isinstance(key, int) for key in place):
                continue
            for remove in (True, False):
                old = changed(value, place, remove=remove)
                for values in ((old,), (old, value)):
                    with self.subTest(place=place, remove=remove, runs=len(values)):
                        said = ""
                        if place[0] in figures.SECTIONS and len(place) == 1:
                            said = "is no report of xlate: %s is missing" % place
                        self.assertEqual(self.draw(*values), said)

    def test_wrong_fields_are_named(self):
        number = ", expected a number from 0 to 10^18"
        positive = ", expected a number from 10^-18 to 10^18"
        for name, value, said in (
            ("seconds.process", "2.5", '"2.5"' + number),
            ("seconds.load", -1, "-1" + number),
            ("stages.device", float("nan"), "NaN" + number),
            ("options.beam_size", True, "true" + number),
            ("latency_ms.p99", 0, "0" + positive),
            ("latency_ms.histogram.0.from", None, "is missing" + positive),
            ("latency_ms.histogram", {}, "{}, expected a list"),
            ("device.name", 5, "5, expected a text"),
            ("options", ["a" * 50], '["%s…, expected an object' % ("a" * 38)),
        ):
            place = [int(key) if key.isdigit() else key for key in name.split(".")]
            wrong = changed(whole(), place, value)
            name = name.replace(".0.", "[0].")
            self.assertEqual(self.draw(wrong), "%s: %s" % (name, said))
            self.assertEqual(self.draw([whole(), wrong]), "report 2: %s: %s" % (name, said))
        for key in ("beam", "tokens_per_second"):
            wrong = changed(sweep(), ("axes", "beam", 1, key), remove=True)
            self.assertEqual(self.draw(wrong), "axes.beam[1].%s: is missing%s" % (key, positive))

    def test_other_files(self):
        other = "has no report of xlate, expected what --report wrote"
        for value, said in (
            ({"rates": {}, "seconds": {}}, "is no report of xlate: lines is missing"),
            ({"seconds": [], "lines": 3}, other),
            ([1, "a", {"b": None}], other),
            ("[" * 400 + "]" * 400, other),
            ("[" * 100000 + "]" * 100000, "too many brackets in one another"),
        ):
            self.assertEqual(self.draw(value), said)
        self.assertIn("is not JSON", self.draw("{"))

    def check_anything(self, count, extension):
        """Puts some value at some place of a report, again and again."""
        chance = random.Random(SEED)
        for number in range(count):
            base = chance.choice((whole(), whole(), sweep()))
            place, new = chance.choice(places_in(base)), chance.choice(ANYTHING)
            value = changed(base, place, new)
            with self.subTest(seed=SEED, number=number, place=place, new=new):
                values = [value] if "axes" in base else [value, whole()]
                self.draw(*values, extension=extension)

    def test_anything_anywhere(self):
        self.check_anything(600, ".html")

    @unittest.skipUnless(MATPLOTLIB, "no matplotlib")
    def test_pictures_of_anything(self):
        self.check_anything(6, ".png")
        self.assertEqual(self.draw(whole(), extension=".png"), "")

    @unittest.skipUnless(MATPLOTLIB, "no matplotlib")
    def test_a_picture_of_nothing(self):
        empty = {"seconds": {}, "lines": {}}
        with self.assertRaisesRegex(SystemExit, "^plot: nothing to draw: no report has times$"):
            self.plot.main(
                [self.write("empty.json", empty), "-o", os.path.join(self.folder, "out.png")]
            )

    def write(self, name, value):
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            json.dump(value, file)
        return path


if __name__ == "__main__":
    unittest.main()
