"""Tests scripts/plot: the numbers and ticks of charts, what it reads from reports, and how its
pages look in a browser. The tests of PNG need matplotlib, and those of the browser need chromium.
They skip themselves where it is missing."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import unittest

import program
from bench_case import BenchCase
from program import ROOT

sys.path.insert(0, os.path.join(ROOT, "scripts"))
sys.dont_write_bytecode = True

import charts
import report_figures as figures

BROWSER = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)

# The script counts what a reader would see: errors, and whether the page is wider than the window.
PROBE = """<script>
const errors = [];
addEventListener("error", e => errors.push(e.message));
addEventListener("load", () => {
  const cut = [...document.querySelectorAll("svg.chart text")].filter(t => {
    const a = t.getBoundingClientRect(), b = t.ownerSVGElement.getBoundingClientRect();
    return a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1;
  }).map(t => t.textContent);
  document.title = JSON.stringify({errors, cut, window: innerWidth,
    page: document.documentElement.scrollWidth,
    charts: document.querySelectorAll("svg.chart").length});
});
</script>"""


def report(beam=4, budget=2048, rate=1000.0):
    return {
        "version": "0.1.0",
        "status": "ok",
        "model": {"path": "models/en-de.bin", "hash": "00"},
        "device": {"name": "cpu", "cpu": "a processor", "driver": None},
        "precision": "fp32",
        "options": {"beam_size": beam, "batch_tokens": budget, "line_buffered": False},
        "policy": {"window": 2000},
        "lines": {"in": 10, "out": 10},
        "counts": {"target_tokens": 300, "decoding_steps": 40},
        "seconds": {
            "load": 0.5,
            "first_output": 0.9,
            "tokenize": 0.02,
            "detokenize": 0.01,
            "encode": 0.2,
            "decode": 1.5,
            "device_busy": None,
            "waiting": 0,
            "write": 0.0001,
            "translate": 2.0,
            "process": 2.6,
        },
        "rates": {
            "target_tokens_per_second": rate,
            "target_tokens_per_second_process": rate / 1.3,
            "sentences_per_second": 4.0,
        },
        "shares": {"rows_idle": 0.1},
        "memory": {"host_peak_bytes": 2**26, "device_peak_bytes": None},
        "bound": "device",
        "stages": {"load": 0.19, "input": 0, "tokenize": 0.01, "device": 0.65, "output": 0.01},
    }


class Numbers(unittest.TestCase):
    def test_three_digits_and_a_prefix(self):
        for value, text in (
            (0, "0"),
            (1, "1"),
            (100, "100"),
            (0.0123, "0.0123"),
            (12.3456, "12.3"),
            (1234, "1.23 k"),
            (999960, "1 M"),
            (45600000, "45.6 M"),
            (2e9, "2 G"),
        ):
            self.assertEqual(charts.number(value), text)

    def test_linear_ticks_are_round_and_inside(self):
        self.assertEqual(charts.linear_ticks(0, 10, 6), [0, 2, 4, 6, 8, 10])
        self.assertEqual(charts.linear_ticks(0, 950), [0, 200, 400, 600, 800])
        self.assertEqual(charts.linear_ticks(3, 3), [3])

    def test_logarithmic_ticks(self):
        self.assertEqual(charts.log_ticks(1, 1000, 6), [1, 10, 100, 1000])
        self.assertEqual(charts.log_ticks(10, 100, 6), [10, 20, 50, 100])
        self.assertLessEqual(len(charts.log_ticks(1e-9, 1e9, 6)), 6)

    def test_a_narrow_logarithmic_axis_has_ticks(self):
        axis = charts.Axis("x", log=True)
        self.assertGreater(len(charts.ticks_of(axis, 620e3, 690e3)), 1)

    def test_one_value_gives_an_axis(self):
        for log in (False, True):
            low, high = charts.limits(charts.Axis("x", log), [7])
            self.assertLess(low, high)
        self.assertEqual(charts.limits(charts.Axis("x"), [0])[0], 0)


class Figures(unittest.TestCase):
    def test_reports_are_found_in_what_other_scripts_write(self):
        one, two = report(1), report(2)
        value = {"date": "x", "runs": {"1": [one], "2": [{"report": two}]}}
        self.assertEqual(figures.reports_in(value), [one, two])
        self.assertEqual(figures.reports_in({"a": [1, "b", None]}), [])

    def test_throughput_has_a_series_for_each_other_setting(self):
        runs = [report(beam, budget, 100 * budget / beam) for beam in (1, 4) for budget in (8, 16)]
        runs.append(report(1, 8, 1000))
        chart = figures.over(runs, "batch_tokens", "budget")
        self.assertEqual([label for label, _ in chart.series], ["beam 1", "beam 4"])
        self.assertEqual(chart.series[0][1], [(8, 900), (16, 1600)], "the median of two runs")
        self.assertIsNone(figures.over(runs[:1], "beam_size", "beam"))

    def test_a_comparison_has_ratios_and_what_differs(self):
        one, two = report(rate=1000), report(rate=1500)
        two["options"]["beam_size"] = 1
        two["options"]["input"] = ["other.txt"]
        two["policy"]["window"] = 5
        rows = {row[0]: row for row in figures.comparison(one, two)}
        self.assertEqual(rows["tokens/s"], ("tokens/s", "1 k", "1.5 k", 1.5))
        self.assertNotIn("device busy", rows)
        self.assertNotIn("waiting", rows)
        self.assertEqual(
            figures.differences(one, two), [("beam_size", 4, 1), ("policy.window", 2000, 5)]
        )

    def test_colours_say_what_is_better(self):
        green, orange, blue = 2, 1, 0
        for heading, ratio, colour in (
            ("tokens/s", 1.5, green),
            ("lines/s, process", 0.5, orange),
            ("decode", 1.5, orange),
            ("host memory", 0.5, green),
            ("target tokens", 1.5, blue),
        ):
            (row,) = figures.ratios([(heading, "", "", ratio)], "").rows
            self.assertEqual((row.colour, row.start < row.end), (colour, True), heading)

    def test_the_bound_is_said(self):
        self.assertEqual(
            figures.bound(report()),
            "Bound by the device. The device was at work 65 % of the process's time.",
        )
        self.assertEqual(figures.bound({}), "")

    def test_times_have_a_unit(self):
        texts = [figures.seconds_text(value) for value in (0, 2.5, 0.0123, 0.000045)]
        self.assertEqual(texts, ["0 s", "2.5 s", "12.3 ms", "45 µs"])


class Plot(BenchCase):
    def files(self):
        """Writes reports with long names and hard texts, and returns their paths."""
        latency = report(1, 1)
        latency["options"]["line_buffered"] = True
        latency["model"]["path"] = "<b>&model</b>.bin"
        latency["latency_ms"] = {
            "p50": 9.9,
            "p90": 10,
            "p99": 10.1,
            "max": 10.1,
            "histogram": [{"from": 9.4, "to": 10.1, "lines": 3}],
        }
        return [
            self.path("first.json", json.dumps(report())),
            self.path("a-rather-long-name-of-a-run-%s.json" % ("x" * 60), json.dumps(latency)),
        ]

    def page(self, *paths):
        out = self.path("page.html")
        self.script("plot", *paths, "-o", out)
        with open(out, encoding="utf-8") as file:
            return file.read()

    def test_a_page_loads_nothing_and_escapes(self):
        page = self.page(*self.files())
        self.assertNotRegex(page, r"(?i)<script|src=|@import|https?://|<b>&model")
        self.assertIn("&lt;b&gt;&amp;model&lt;/b&gt;.bin", page)
        for text in ("Compared", "line_buffered", "Bound by the device", "% of the lines", "p99"):
            self.assertIn(text, page)

    def test_reports_without_what_is_new_are_drawn(self):
        old = report()
        for name in ("bound", "stages"):
            del old[name]
        del old["seconds"]["write"]
        page = self.page(self.path("old.json", json.dumps(old)))
        self.assertNotIn("Bound by", page)

    def test_how_a_run_ended_is_said(self):
        for status, said in (("ok", "run"), ("error", "run (error)"), (None, "run")):
            page = self.page(self.path("run.json", json.dumps({**report(), "status": status})))
            self.assertIn("<h2>%s</h2>" % said, page)

    def test_a_run_without_lines_is_drawn(self):
        empty = report(rate=0)
        empty["seconds"] = dict.fromkeys(empty["seconds"], 0)
        empty["lines"], empty["bound"], empty["device"] = {"in": 0, "out": 0}, None, None
        self.page(self.path("empty.json", json.dumps(empty)))

    def test_the_sweep_of_the_documentation(self):
        page = self.page(os.path.join(ROOT, "docs", "sweep.json"))
        self.assertEqual(page.count("<figure>"), 7)

    def test_errors_are_one_line(self):
        out = self.path("x.html")
        for text, message in (("{", "is not JSON"), ("{}", "has no report of xlate")):
            _, said = self.script("plot", self.path("bad.json", text), "-o", out, code=1)
            self.assertIn(message, said)
            self.assertEqual(said.count("\n"), 1)
        _, said = self.script("plot", self.path("missing.json"), "-o", out, code=1)
        self.assertIn("cannot be read", said)
        _, said = self.script("plot", "a.json", "-o", "x.pdf", code=2)
        self.assertIn(".png or .html", said)

    @unittest.skipUnless(importlib.util.find_spec("matplotlib"), "no matplotlib")
    def test_png(self):
        import matplotlib.image

        brightness = []
        for options in ([], ["--dark"]):
            out = self.path("out.png")
            self.script("plot", *self.files(), "-o", out, *options)
            image = matplotlib.image.imread(out)[:, :, :3]
            height, width, _ = image.shape
            self.assertGreater(min(height, width), 400)
            # What is drawn is neither a bare background nor cut off at the edges.
            background = image[0, 0]
            drawn = (abs(image - background) > 0.1).any(axis=2)
            self.assertGreater(drawn.mean(), 0.01)
            self.assertFalse(drawn[[0, -1], :].any() or drawn[:, [0, -1]].any())
            colors = {tuple(color) for color in (image[drawn] * 15).round().astype(int).tolist()}
            self.assertGreater(len(colors), 8)
            brightness.append(background.mean())
        self.assertGreater(brightness[0], 0.8)
        self.assertLess(brightness[1], 0.3)

    def probe(self, path, width):
        """Returns what the probe in the page says in a window of this width. The window is a frame,
        because a browser's own cannot be as narrow as a phone."""
        frame = self.path(
            "frame.html",
            '<iframe src="page.html" width="%d" height="900" style="border:0"></iframe><script>'
            "onload = () => { document.title = frames[0].document.title; }</script>" % width,
        )
        done = subprocess.run(
            [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
            + ["--user-data-dir=" + self.path("profile"), "--allow-file-access-from-files"]
            + ["--virtual-time-budget=2000", "file://" + frame],
            capture_output=True,
            text=True,
            timeout=program.TIMEOUT,
        )
        title = re.search("<title>(.*?)</title>", done.stdout)
        self.assertTrue(title, done.stderr[-2000:])
        return json.loads(title[1].replace("&amp;", "&"))

    @unittest.skipUnless(BROWSER, "no chromium")
    def test_pages_fit_a_phone_and_a_desktop(self):
        grid = [report(b, n, n * 1000.0 / b) for b in (1, 2, 4, 8, 16, 32) for n in (32, 65536)]
        paths = [*self.files(), self.path("grid.json", json.dumps(grid))]
        for files in (paths[:2], paths, [os.path.join(ROOT, "docs", "sweep.json")]):
            page = self.page(*files)
            self.path("page.html", page.replace("<head>", "<head>" + PROBE))
            for width in (360, 1280):
                with self.subTest(files=len(files), width=width):
                    seen = self.probe("page.html", width)
                    self.assertEqual(seen["window"], width)
                    self.assertEqual((seen["errors"], seen["cut"]), ([], []))
                    self.assertLessEqual(seen["page"], width)
                    self.assertEqual(seen["charts"], page.count('class="chart"'))


if __name__ == "__main__":
    program.main()
