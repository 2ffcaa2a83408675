#!/usr/bin/env python3
"""Tests the modes of scripts/bench that measure models with random weights, with tiny networks:
that they run, and what they say where something is wrong. The tests do not judge the figures."""

import json

import program
from bench_case import BenchCase
from program import BINARY

setUpModule = program.require


class Shapes(BenchCase):
    def test_shapes(self):
        """Runs tiny networks of the families, beside a program that cannot read any of them."""
        path, tiny = self.path("shapes.json"), {"d": 24, "heads": 2, "layers": 2, "ffn": 40}
        command = ["--device", "cpu", "--xlate", BINARY, "--line-buffered", "--start"]
        command += ["--sizes", json.dumps({**tiny, "vocabulary": 150}), "--repeat", "2"]
        command += ["--teraflops", "0.00001"]
        table, _ = self.script("bench", "shapes", *command, "--old", "/bin/false", "--json", path)
        rows = [row.split(" | ")[0] for row in table.split("\n") if row.startswith("| ")]
        titles = ["NLLB-600M", "opus-mt tc-big", "T5-base"]
        titles += [title + ", like text" for title in titles]
        names = [name for title in titles for name in [title] * 2]
        self.assertEqual(
            [row[2:] for row in rows if "--" not in row],
            (["shape"] + names) * 2 + ["shape"] + titles,
        )
        self.assertIn("old program: Failure: exit 1: no message", table)
        with open(path) as file:
            runs = json.load(file)["runs"]
        # The floor is there where the program was built with CUDA, and needs a GPU.
        runs = [run for run in runs if run["program"] != "floor"]
        self.assertEqual(len(runs), 6 * (2 * 5 + 2))
        for run in runs:
            if run["program"] == "old":
                self.assertIn("exit 1", run["failure"])
                continue
            if run["kind"] == "start":
                self.assertEqual(len(run["reports"]), 2)
                for seconds in run["reports"]:
                    self.assertTrue(0 < seconds["first_output"] <= seconds["exit"], seconds)
                continue
            self.assertEqual(len(run["reports"]), 1 if run["kind"] == "keys" else 2)
            for report in run["reports"]:
                lines = report["lines"]["out"]
                self.assertEqual(report["counts"]["target_tokens"], 30 * lines)
                self.assertEqual(report["lines"]["truncated"], 0)
                if run["kind"] == "keys":
                    keys, beam = report["distinct_keys"], int(run["beam"])
                    self.assertTrue(keys == 1 if beam == 1 else 1 < keys < beam, keys)
        for wrong, message in (
            (["--only", "gpt"], "expected some of nllb,"),
            (["--sizes", '{"heads": 7}'], "an even d that the heads divide"),
            (["--sizes", '{"d": "8"}'], "whole numbers"),
        ):
            said = self.script("bench", "shapes", "--xlate", BINARY, *wrong, code=2)[1]
            self.assertIn(message, said)

    def test_prompts(self):
        """Continues prompts with tiny networks, beside a program that cannot read any of them."""
        path, tiny = self.path("prompts.json"), {"d": 24, "heads": 4, "kv_heads": 2, "layers": 2}
        tiny |= {"ffn": 40, "vocabulary": 150, "context": 140, "shortest": 2, "longest": 12}
        command = ["--device", "cpu", "--xlate", BINARY, "--line-buffered", "--repeat", "2"]
        command += ["--sizes", json.dumps(tiny), "--prompts", "7", "--old", "/bin/false"]
        table, _ = self.script("bench", "prompts", *command, "--json", path)
        rows = [row[2:].split(" | ") for row in table.split("\n") if row.startswith("| ")]
        names = ["GPT-2 124M", "Llama 1B", "Llama 8B", "Llama 1B, long prompts"]
        self.assertEqual(
            [row[0] for row in rows if row[0] != "---"], ["shape", *names, "shape", *names[:3]]
        )
        self.assertEqual([row[1] for row in rows[2:6]], ["new"] * 3 + ["all"])
        self.assertIn("old program: Failure: exit 1: no message", table)
        with open(path) as file:
            runs = json.load(file)["runs"]
        self.assertEqual(len(runs), 2 * (4 + 3))
        for run in runs:
            if run["program"] == "old":
                self.assertIn("exit 1", run["failure"])
                continue
            self.assertEqual(len(run["reports"]), 2)
            lines = 20 if run["kind"] == "alone" else 7
            for report in run["reports"]:
                self.assertEqual(report["lines"]["out"], lines)
                self.assertEqual(report["counts"]["target_tokens"], 128 * lines)
                self.assertTrue(2 * lines < report["counts"]["source_tokens"] < 12 * lines)
        rates = [
            (counts["target_tokens"] + counts["source_tokens"]) / report["seconds"]["translate"]
            for report in runs[-2]["reports"]
            for counts in [report["counts"]]
        ]
        self.assertEqual(runs[-2]["shape"], "llama-1b-long")
        self.assertIn("(%.0f to %.0f)" % (min(rates), max(rates)), rows[5][6])
        for wrong, message in (
            (["--only", "nllb"], "expected some of gpt2,"),
            (["--sizes", '{"longest": 900}'], "a context for longest + 128 tokens"),
            (["--sizes", '{"kv_heads": 5}'], "heads that kv_heads divides"),
            (["--seconds", "0"], "a number above 0"),
        ):
            said = self.script("bench", "prompts", "--xlate", BINARY, *wrong, code=2)[1]
            self.assertIn(message, said)


if __name__ == "__main__":
    program.main()
