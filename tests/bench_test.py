"""Tests scripts/bench and scripts/score on a few lines: that they run, and what they say where
something is missing. The tests do not judge the figures."""

import json
import os
import subprocess

import program
from bench_case import BenchCase
from program import BINARY, EN_DE

ON_CPU = ["--device", "cpu", "--precision", "fp32", "--xlate", BINARY]
setUpModule = program.require


class Bench(BenchCase):
    def setUp(self):
        super().setUp()
        self.text = self.path("few.txt", "The file is open.\nPlease close it.\nThank you.\n")

    def test_options_have_a_share_of_the_run_without_them(self):
        out = self.path("options.json")
        table, _ = self.script(
            *("bench", "options", "-m", EN_DE, "-i", self.text, "--repeat", "1", "--json", out),
            *("--only", "plain,alignments,target-prefix,score-pairs,greedy,sample"),
            *("--old", BINARY, "--xlate", BINARY, "--", "--device", "cpu"),
        )
        rows = [row.split(" | ") for row in table.split("\n") if row.startswith("| ")][2:]
        self.assertEqual(
            [row[0] for row in rows],
            ["| plain", "| plain, old program", "| alignments", "| target-prefix"]
            + ["| score-pairs", "| greedy", "| greedy, old program", "| sample"],
        )
        self.assertEqual(
            [" of " in row[-1] for row in rows], [False, *4 * [True], False, True, True]
        )
        with open(out) as file:
            reports = json.load(file)["reports"]
        self.assertIn("sample, new program", reports)

    def test_an_unknown_option_is_an_error(self):
        _, errors = self.script(
            *("bench", "options", "-m", EN_DE, "-i", self.text, "--only", "plain,magic"),
            *("--xlate", BINARY),
            code=2,
        )
        self.assertIn("--only: magic", errors)

    def test_settings_and_a_refused_one(self):
        table, _ = self.script(
            "bench",
            "-m",
            EN_DE,
            "-i",
            self.text,
            "--device",
            "cpu",
            "--precision",
            "fp32,fp16",
            "--beam",
            "1",
            "--repeat",
            "1",
            "--xlate",
            BINARY,
            code=1,
        )
        rows = [row for row in table.split("\n") if row.startswith("| en-de.bin")]
        self.assertEqual(len(rows), 2)
        self.assertIn("--precision", rows[1])

    def test_sweep(self):
        path = self.path("sweep.json")
        table, _ = self.script(
            "sweep",
            *ON_CPU,
            "--axes",
            "layers,beam",
            "--values",
            "1,2,4",
            "--base",
            '{"d": 64, "head": 32, "layers": 1, "vocabulary": 500}',
            "--seconds",
            "0.1",
            "--teraflops",
            "0.02",
            "--json",
            path,
        )
        self.assertEqual(table.count("\n| "), 8)
        with open(path) as file:
            axes = json.load(file)["axes"]
        for axis in ("layers", "beam"):
            self.assertEqual([point[axis] for point in axes[axis]], [1, 2, 4])
            self.assertEqual([point["equal"] for point in axes[axis]], [20, 20, 20])
            self.assertGreater(axes[axis][1]["worse"], 0)
        self.assertIn(
            "expected some of", self.script("sweep", *ON_CPU, "--axes", "width", code=2)[1]
        )

    def test_step_timeline(self):
        """Reads a trace of three steps, the first of which has much work beside it and kernels that
        begin before the kernel ahead of them has ended. Of the two steps of ncu, the longer one is
        shown."""
        cuda, product = (
            "_ZN5xlate4cuda11_GLOBAL__N_",
            "nvjet_sm90_hsh_128x128_64x6_2x1_v%s_bz_coopA_bias_TNT",
        )
        advance, merge = cuda + "14advance_kernelEv", cuda + "12merge_kernelEv"
        stream, vocabulary = (
            cuda + "13stream_kernelI6__halfLi64ELb1EEEvT_",
            cuda + "17vocabulary_kernelI6__halfLi8ELi8EEEvT_",
        )
        spans = [
            (0, 2000, 7, advance),
            (3000, 23000, 7, product % ""),
            (23000, 63000, 7, stream),
            (50000, 110000, 9, product % ""),
            (65000, 95000, 7, vocabulary),
            (80000, 98000, 7, merge),
            (99000, 101000, 7, advance),
            (101500, 102000, 7, "memcpy"),
            (102000, 112000, 7, product % ""),
            (110000, 120000, 7, product % "_ssched"),
            (121000, 136000, 7, stream),
            (136000, 148000, 7, vocabulary),
            (140000, 149000, 7, merge),
            (149500, 151000, 7, advance),
            (152000, 190000, 7, stream),
            (190000, 191000, 7, advance),
        ]
        trace = self.path(
            "trace.tsv", "".join("%d\t%d\t%d\t%s\n" % span for span in reversed(spans))
        )
        kernels = [
            (
                "xlate::<unnamed>::advance_kernel(xlate::RulesView)",
                7,
                "100,000",
                "200,000",
                "2,000",
                1,
                0,
            ),
            (product % "", 7, 1, 1, "8,000", 1, 1),
            (
                "xlate::<unnamed>::advance_kernel(xlate::RulesView)",
                7,
                "100,000",
                "200,000",
                "2,000",
                1,
                0,
            ),
            (product % "", 7, "1,500,000", "5,000,000", "8,000", 10, 20),
            (product % "_ssched", 7, "2,500,000", "6,000,000", "24,000", 10, 60),
            (
                "xlate::<unnamed>::collect_kernel(const int *)",
                16,
                "100,000",
                "200,000",
                "2,000",
                1,
                0,
            ),
            (
                "void xlate::<unnamed>::stream_kernel<__half, 64, "
                "1>(xlate::<unnamed>::StreamArgs<T1>)",
                7,
                "20,000,000",
                "30,000,000",
                "16,000",
                "69.40",
                4,
            ),
            (
                "xlate::<unnamed>::advance_kernel(xlate::RulesView)",
                7,
                "100,000",
                "200,000",
                "2,000",
                1,
                0,
            ),
        ]
        rows = [
            [
                "ID",
                "Kernel Name",
                "Stream",
                "dram__bytes.sum",
                "lts__t_bytes.sum",
                "gpu__time_duration.sum",
                "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",
                "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
                "device__attribute_display_name",
            ],
            ["", "", "", "byte", "byte", "ns", "%", "%", ""],
            *([i, *kernel, "GPU X"] for i, kernel in enumerate(kernels)),
        ]
        ncu = self.path(
            "ncu.csv",
            '==PROF== Connected\n"No," he said.\n'
            + "\n".join(",".join('"%s"' % cell for cell in row) for row in rows)
            + "\n",
        )

        expected = """Step 2 of 3 on GPU X, 50.0 µs, 48.0 of them in kernels. \
Bytes and shares of the peaks: ncu's step 2 of 2, 50.0 µs of kernels one at a time.

| kernel | launches | µs | % | MB of memory | MB of L2 | memory % | tensor cores % | ceiling |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| nvjet 128x128 coopA bias | 2 | 18.0 | 36.0 | 4.0 | 11.0 | 10 | 50 | tensor cores 50 % |
| stream_kernel<__half, 64, 1> | 1 | 15.0 | 30.0 | 20.0 | 30.0 | 69 | 4 | memory 69 % |
| vocabulary_kernel<__half, 8, 8> | 1 | 12.0 | 24.0 | – | – | – | – | – |
| advance_kernel | 1 | 1.5 | 3.0 | 0.1 | 0.2 | 1 | 0 | memory 1 % |
| merge_kernel | 1 | 1.0 | 2.0 | – | – | – | – | – |
| memcpy | 1 | 0.5 | 1.0 | – | – | – | – | – |
| gaps |  | 2.0 | 4.0 | – | – | – | – | – |
| all | 7 | 50.0 | 100.0 | 24.1 | 41.2 | 29 | 33 | tensor cores 33 % |
| beside it, on other streams | 1 | 9.0 | – | – | – | – | – | – |
"""
        self.assertEqual(self.script("step_timeline", "--from", self.folder)[0], expected)
        table, _ = self.script("step_timeline", "--from", self.folder, "--step", "1")
        self.assertIn("Step 1 of 3 on GPU X, 99.0 µs, ", table)
        self.assertIn("| beside it, on other streams | 1 | 51.0 |", table)
        *parts, whole = (
            [round(10 * float(cell)) for cell in line.split(" | ")[2:4]]
            for line in table.split("\n")[4:-2]
        )
        self.assertEqual([[sum(column) for column in zip(*parts)], whole], [[990, 1000]] * 2)

        def refused(*arguments):
            return self.script("step_timeline", *arguments, code=1)[1]

        self.assertIn(
            "has 3 whole steps, not a step 4", refused("--from", self.folder, "--step", "4")
        )

        # Stand-ins take the place of the programs that a run needs.
        stand_in = self.path(
            "xlate",
            '#!/bin/sh\n[ "$1" = --version ] && exit\nfor last; do :; done\n'
            'cat \'%s\' > "$XLATE_TRACE"\necho \'{"device": {}}\' > "$last"\n' % trace,
        )
        profiler, raw = self.path("ncu", "#!/bin/sh\ncat '%s'\n" % ncu), self.path("raw")
        for path in (stand_in, profiler):
            os.chmod(path, 0o755)
        command = [
            "-m",
            EN_DE,
            "-i",
            self.text,
            "--skip",
            "0",
            "--xlate",
            stand_in,
            "--ncu",
            profiler,
            "--raw",
            raw,
        ]
        self.assertIn("needs CUPTI", refused(*command))
        self.path("libtrace_kernels.so", "")
        self.assertTrue(self.script("step_timeline", *command)[0].endswith("\n\n" + expected))
        self.assertEqual(self.script("step_timeline", "--from", raw)[0], expected)
        self.path("raw/trace.tsv", "0\t10\t7\tadvance_kernel\n")
        self.assertIn("no whole step in the trace", refused("--from", raw))
        self.path("raw/ncu.csv", "==ERROR== ERR_NVGPUCTRPERM\n")
        self.assertIn("ERR_NVGPUCTRPERM", refused("--from", raw))
        self.path("trace.tsv", "")
        self.assertIn("the trace is empty", refused(*command))

    def test_imposed_lengths(self):
        lengths, report = self.path("lengths", "4\n9\n1\n"), self.path("report.json")
        command = [
            BINARY,
            "-m",
            EN_DE,
            "-i",
            self.text,
            "--device",
            "cpu",
            "-o",
            os.devnull,
            "--report",
            report,
        ]
        for beam in ("1", "4"):
            subprocess.run(
                [*command, "-b", beam],
                check=True,
                env={**os.environ, "XLATE_TEST_LENGTHS": lengths},
            )
            with open(report) as file:
                self.assertEqual(json.load(file)["counts"]["target_tokens"], 14)
        done = subprocess.run(
            command,
            env={**os.environ, "XLATE_TEST_LENGTHS": self.path("wrong", "4\nfour\n")},
            stderr=subprocess.PIPE,
        )
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"line 2 is not a number", done.stderr)

    def test_startup(self):
        path = self.path("startup.json")
        table, _ = self.script(
            "bench",
            "startup",
            "-m",
            EN_DE,
            "-i",
            self.text,
            *ON_CPU,
            "--floor",
            "/bin/true",
            "--repeat",
            "2",
            "--json",
            path,
        )
        self.assertEqual(table.count("\n| "), 6)
        with open(path) as file:
            startup = json.load(file)
        self.assertEqual(len(startup["turns"]), 2)
        for kind in ("first_output", "whole"):
            self.assertGreater(startup["figures"][kind], startup["figures"][kind + "_above_floor"])

    def test_latency_and_throughput(self):
        path = self.path("runs.json")
        for mode, lines in (("latency", 3), ("throughput", 6)):
            self.script(
                "bench",
                mode,
                "-m",
                EN_DE,
                "-i",
                self.text,
                *ON_CPU,
                "--beam",
                "1",
                "--repeat",
                "1",
                "--times",
                "2",
                "--json",
                path,
            )
            with open(path) as file:
                self.assertEqual(json.load(file)["runs"]["1"][0]["lines"]["out"], lines, mode)

    def test_score_or_what_it_lacks(self):
        try:
            import sacrebleu  # noqa: F401
        except ImportError:
            _, said = self.script(
                "score", "-m", EN_DE, "-i", self.text, "-r", self.text, *ON_CPU, code=1
            )
            self.assertIn("sacrebleu", said)
            return
        table, _ = self.script(
            "score", "-m", EN_DE, "-i", self.text, "-r", self.text, *ON_CPU, "--beam", "1,4"
        )
        self.assertEqual(table.count("| en-de.bin"), 2)
        self.assertIn("nrefs:1", table)


if __name__ == "__main__":
    program.main()
