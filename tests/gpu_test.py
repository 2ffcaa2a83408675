"""Tests what only a run on a GPU can show: an error of the device in the middle of a run, which
special kernels run, what they give for every family and in every order, prompts that fill a
context, a wide network, numbers that overflow float16, a missing cuBLASLt, and memory over a long
run.

The tests have the ctest label `gpu` and skip themselves where there is no GPU. XLATE_TEST_DEVICE
names another device than `cuda`.
"""

import ctypes
import os
import random
import time
import unittest

import decoder_corners_test
import families_test
import family_invariance_test
import generated_model
import model_shapes
import overflow_test
import program
import reference_test
from program import EN_DE, SHARED, Case, Running, source_lines, xlate

DEVICE = "cuda" if program.DEVICE == "cpu" else program.DEVICE
MIB = 2**20


def setUpModule():
    program.require()
    probe = xlate("-q", "-b", 1, "--device", DEVICE, input="Yes.\n", device=None)
    if probe.code:
        raise unittest.SkipTest("no GPU: " + probe.errors.strip())


class Fault(Case):
    """With XLATE_TEST_CUDA_ERROR_AT_STEP the device refuses that step as it would after a fault of
    its own."""

    # Only a few lines are in flight and sorted together, so that the first of them are written
    # before the error comes.
    OPTIONS = ["-q", "-b", 4, "--max-length", 60, "--batch-tokens", 64, "--window", 10]

    def test_an_error_in_the_middle_of_a_run(self):
        text = "".join(line + "\n" for line in source_lines())
        whole, report = self.report(*self.OPTIONS, input=text, lines=200, device=DEVICE)
        steps = report["counts"]["decoding_steps"]
        written = []
        for step in (1, steps // 2, steps * 3 // 4):
            with self.subTest(step=step):
                path = self.path("failed.json")
                result = xlate(
                    *self.OPTIONS,
                    "--report",
                    path,
                    input=text,
                    device=DEVICE,
                    env={**os.environ, "XLATE_TEST_CUDA_ERROR_AT_STEP": str(step)},
                )
                self.check(result, 1)
                self.assertEqual(len(result.error_lines), 1, result.story())
                self.says(result, "CUDA")
                self.assertTrue(
                    whole.out.startswith(result.out)
                    and (not result.out or result.out.endswith(b"\n")),
                    "no complete prefix\n" + result.story(),
                )
                report = self.load_report(path, result)
                self.assertEqual(report["status"], "error", result.story())
                self.assertIn("CUDA", report["error"])
                self.assertEqual(report["lines"]["out"], len(result.lines), result.story())
                written.append(len(result.lines))
        self.assertGreater(max(written), 0, "no line was written before any of the errors")
        program.figure(
            "of %d steps; lines written before the error: %s of 200"
            % (steps, ", ".join(map(str, written)))
        )


class SpecialKernels(Case):
    """Checks that special kernels do not silently stop running. A model of the usual shape runs on
    them, and for another model the report says why not."""

    FAST = {"vocabulary": "fused", "attention": "streamed", "norm": "fused with its product"}

    def paths(self, *options, model=EN_DE, lines=400):
        text = "".join(source_lines()[i % 200] + "\n" for i in range(lines)).encode()
        # Each test gives its own precision.
        where = ["--device", DEVICE, "--gpu-memory", "8GiB"]
        _, report = self.report(*where, *options, input=text, lines=lines, device=None, model=model)
        return report["paths"]

    def test_the_usual_shape(self):
        for precision in ("fp16", "bf16"):
            for beams in (1, 4):
                with self.subTest(precision=precision, beams=beams):
                    self.assertEqual(
                        self.paths("-b", beams, "--precision", precision, lines=4000 // beams),
                        self.FAST,
                    )
        self.assertEqual(
            self.paths("-b", 4, "--precision", "fp16", "--line-buffered", lines=20)["solo"],
            "a step is one kernel",
        )

    def alone_and_many(self, model, text, precision="fp16", beams=4):
        """Decodes lines one at a time and together, and expects the same outputs. Returns what the
        report says of the solo kernel."""
        where = ["--device", DEVICE, "--gpu-memory", "8GiB", "--precision", precision]
        where += ["-b", beams, "--max-length", 60, *program.IDS]
        more = {"input": text, "lines": text.count(b"\n"), "device": None, "model": model}
        many, _ = self.report(*where, **more)
        alone, report = self.report(*where, "--line-buffered", **more)
        self.assertEqual(alone.lines, many.lines)
        return report["paths"]["solo"]

    def test_a_step_of_other_families_is_one_kernel(self):
        """The random networks have the widths, heads and feed-forward layers of NLLB, mBART-50 with
        5 beams, BART-base, T5-base and Flan-T5-large."""
        for family, sizes, more, precision, beams in (
            ("m2m_100", (1024, 16, 3, 4096), {}, "fp16", 4),
            ("mbart", (1024, 16, 2, 4096), {}, "bf16", 5),
            ("bart", (768, 12, 2, 3072), {"activation_function": "gelu"}, "fp16", 4),
            ("t5", (768, 12, 3, 3072), {}, "bf16", 4),
            ("t5", (1024, 16, 2, 2816), {"feed_forward_proj": "gated-gelu"}, "bf16", 1),
        ):
            with self.subTest(family=family, precision=precision, beams=beams):
                config = model_shapes.config_of(family, *sizes, 5000, **more)
                model, source = self.path("model.bin"), self.path("source.ids")
                generated_model.write_model(model, config)
                lengths = [1, 3, 7, 12, 20, 33, 48, 60, 90, 120]
                model_shapes.write_source(source, lengths, config, random.Random(3))
                with open(source, "rb") as file:
                    text = file.read()
                self.assertEqual(
                    self.alone_and_many(model, text, precision, beams), "a step is one kernel"
                )

    def test_heads_of_another_width_say_why(self):
        """The tiny BART has heads of 8 columns. Its lines are the same when they are decoded one at
        a time."""
        folder = os.path.join(program.ROOT, "tests", "data", "families", "bart")
        model, checkpoint = self.path("bart.bin"), families_test.copy_of(folder, self.path("bart"))
        families_test.convert.convert(checkpoint, model)
        with open(os.path.join(folder, "source.ids"), "rb") as file:
            text = b"".join(file.readlines()[:40])
        self.assertEqual(self.alone_and_many(model, text), "no: 8 heads of width 8")

    def test_other_shapes_say_why(self):
        paths = self.paths("-b", 4, "--precision", "fp32", lines=50)
        self.assertEqual(set(paths.values()), {"no: float32"})
        paths = self.paths("-b", 4, "--precision", "fp16", model=SHARED, lines=50)
        self.assertEqual(paths["attention"], "no: 8 heads of width 8")
        self.assertRegex(paths["norm"], r"^no: products of \d+ to 64 columns$")
        self.assertIn("no: ", self.paths("-b", 12, "--precision", "fp16", lines=50)["vocabulary"])
        self.assertIn(
            "no: ", self.paths("-b", 12, "--precision", "fp16", "--line-buffered", lines=5)["solo"]
        )


ON_GPU = ["--device", DEVICE, "--precision", "fp32", "--gpu-memory", "8GiB"]


class Families(families_test.Families):
    device_options, where = ON_GPU, {"device": None}


class RandomNetworks(families_test.RandomNetworks):
    device_options, where = ON_GPU, {"device": None}


class Decoders(families_test.Decoders):
    device_options, where = ON_GPU, {"device": None}


class InvarianceInFloat32(family_invariance_test.FamilyInvariance):
    device, precision = DEVICE, "fp32"


class InvarianceInFloat16(family_invariance_test.FamilyInvariance):
    device, precision = DEVICE, "fp16"


class InvarianceInBFloat16(family_invariance_test.FamilyInvariance):
    device, precision = DEVICE, "bf16"


class Corners(decoder_corners_test.LongPrompts, decoder_corners_test.WideNetwork):
    device, precision = DEVICE, "bf16"


class Overflow(overflow_test.OverflowCase):
    """t5 is changed so that values inside a feed-forward layer overflow float16, although it
    computes the same. float32 and bfloat16 hold them, and factors of two change no bits there."""

    def where(self, precision, **changes):
        return {
            "options": [
                *self.options("beam4.stop-false", **changes),
                *("--device", DEVICE, "--gpu-memory", "8GiB", "--precision", precision),
            ],
            "more": {"input": self.lines("t5"), "device": None},
        }

    def translate(self, model, precision, *more, **changes):
        """Returns (lines, report)."""
        run = self.where(precision, **changes)
        result, report = self.report(*run["options"], *more, model=model, lines=40, **run["more"])
        self.assertEqual(result.err, b"", result.story())
        return result.lines, report

    def test_lines_that_overflow_float16_are_decoded_once_more_in_float32(self):
        model = self.scaled_t5(16)
        for more, changes in (
            ([], {}),
            ([], {"-b": "1"}),
            (["--beam-groups", "2", "--diversity", "1"], {}),
            ([], {"--no-repeat-ngram": "3", "--repetition-penalty": "1.3"}),
            (["--line-buffered"], {}),
            (["--token-scores", "--alignments"], {}),
            (["--batch-tokens", "100", "--window", "7"], {}),
        ):
            with self.subTest(more=more, changes=changes):
                wanted, _ = self.translate(model, "fp32", *more, **changes)
                found, report = self.translate(model, "fp16", *more, **changes)
                self.assertEqual(found, wanted)
                self.assertEqual(report["precision"], "fp16")
                self.assertEqual(report["retries"]["overflow"], 40)
                self.assertEqual(report["lines"]["retried"], 40)
                self.assertEqual(report["lines"]["out"], 40)

    def test_pairs_that_overflow_are_scored_once_more_in_float32(self):
        model = self.scaled_t5(16)
        targets, _ = self.translate(model, "fp32")
        sources = self.lines("t5").decode().split("\n")
        pairs = "".join(
            "%s\t%s\n" % (source, line.split(" ||| ")[1]) for source, line in zip(sources, targets)
        )
        found = {}
        for precision in ("fp32", "fp16"):
            result, report = self.report(
                *("--score-pairs", "--input-format", "ids", "--precision", precision),
                *("--device", DEVICE, "--gpu-memory", "8GiB"),
                model=model,
                input=pairs,
                device=None,
                lines=40,
            )
            found[precision] = result.lines
            self.assertEqual(report["retries"]["overflow"], 40 if precision == "fp16" else 0)
        self.assertEqual(found["fp16"], found["fp32"])

    def test_draws_that_overflow(self):
        model, options = self.scaled_t5(16), ["--sample", "--top-p", "0.9", *overflow_test.IDS]
        runs = [
            self.ok(
                *options,
                *("--device", DEVICE, "--gpu-memory", "8GiB", "--precision", precision),
                model=model,
                device=None,
                input=self.lines("t5"),
            ).lines
            for precision in ("fp32", "fp16")
        ]
        self.same(*runs)

    def test_which_lines_overflow_depends_on_the_line_alone(self):
        """With some factors a part of the lines overflows."""
        exact, _ = self.translate(self.scaled_t5(0), "fp32")
        counts = []
        for power in range(8, 15):
            model = self.scaled_t5(power)
            found, report = self.translate(model, "fp16")
            counts.append(report["retries"]["overflow"])
            self.assertGreaterEqual(sum(a == b for a, b in zip(found, exact)), counts[-1])
            few, report = self.translate(model, "fp16", "--batch-tokens", "60", "--window", "5")
            self.assertEqual(found, few)
            self.assertEqual(report["retries"]["overflow"], counts[-1])
        program.figure("lines decoded once more with factors 2^8 to 2^14: %s of 40" % counts)
        self.assertEqual(counts, sorted(counts))
        self.assertEqual(counts[-1], 40)

    def test_no_room_for_the_network_in_float32_is_one_clear_error(self):
        run, model = self.where("fp16"), self.scaled_t5(16)
        run["more"]["input"] = self.lines("t5", 1)
        options = [*run["options"], "--batch-tokens", "1"]
        errors = []
        for size in range(2, 40):
            at = options.index("--gpu-memory") + 1
            options[at] = "%dMiB" % size
            result = xlate(*options, model=model, **run["more"])
            if result.code == 0:
                break
            self.assertEqual(result.code, 1, result.story())
            self.assertEqual(len(result.error_lines), 1, result.story())
            self.assertEqual(result.out, b"")
            errors.append(result.errors)
        self.assertTrue(any("line 1" in text and "overflow" in text for text in errors), errors)

    def test_a_residual_stream_that_overflows_float16(self):
        model = self.t5_with_large_stream(13)
        wanted, _ = self.translate(model, "fp32")
        found, report = self.translate(model, "fp16")
        self.assertEqual(found, wanted)
        self.assertEqual(report["retries"]["overflow"], 40)
        lines, _ = self.translate(model, "bf16")
        wanted, _ = self.translate(self.scaled_t5(0), "fp32")
        equal = sum(a.split(" ||| ")[1] == b.split(" ||| ")[1] for a, b in zip(lines, wanted))
        self.assertGreaterEqual(equal, 30)

    def test_other_types_hold_the_values(self):
        plain, scaled = self.scaled_t5(0), self.scaled_t5(16)
        for precision in ("bf16", "fp32"):
            wanted, _ = self.translate(plain, precision)
            found, _ = self.translate(scaled, precision)
            self.assertEqual(found, wanted, precision)

    def test_auto_is_bfloat16_for_t5(self):
        model = self.scaled_t5(16)
        found, report = self.translate(model, "auto")
        self.assertEqual(report["precision"], "bf16")
        self.assertEqual(found, self.translate(model, "bf16")[0])

    def test_a_weight_that_float16_cannot_hold(self):
        run, model = self.where("fp16"), self.scaled_t5(17)
        self.fails(
            *run["options"],
            names=["encoder.2.feed_forward.up.weight", "float16 cannot hold", "--precision bf16"],
            model=model,
            **run["more"],
        )


class NoCublas(Case):
    """cuBLASLt can only be found by LD_LIBRARY_PATH, which is then taken away. xlate reports it in
    one line that names the library, and `auto` uses the CPU."""

    def run_without(self, device):
        folders = [
            folder
            for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":")
            if os.path.isdir(folder)
            and not any(name.startswith("libcublasLt.so") for name in os.listdir(folder))
        ]
        return xlate(
            "-b",
            1,
            input="Yes.\n",
            device=device,
            env={**os.environ, "LD_LIBRARY_PATH": ":".join(folders)},
        )

    def test_it_is_named(self):
        result = self.run_without(DEVICE)
        if result.code == 0:
            self.skipTest("cuBLASLt is found without LD_LIBRARY_PATH")
        self.assertEqual(
            (result.code, result.out, len(result.error_lines)), (1, b"", 1), result.story()
        )
        self.says(result, "libcublasLt")
        result = self.run_without("auto")
        self.assertEqual(
            (result.code, len(result.lines), len(result.error_lines)), (0, 1, 1), result.story()
        )
        self.says(result, "libcublasLt")


class Nvml:
    """Returns the bytes in use on the first GPU as the driver counts them, whichever library
    allocated them."""

    class Memory(ctypes.Structure):
        _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]

    def __init__(self):
        self.library, self.device = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p()
        if self.library.nvmlInit_v2() or self.library.nvmlDeviceGetHandleByIndex_v2(
            0, ctypes.byref(self.device)
        ):
            raise OSError("NVML finds no GPU")

    def used(self):
        memory = self.Memory()
        self.library.nvmlDeviceGetMemoryInfo(self.device, ctypes.byref(memory))
        return memory.used


class Memory(Case):
    """Needs the GPU for itself. Between 40 and 60 % of the time every kind of allocation has
    happened once. Before 85 % the run does not drain."""

    REPEAT, DEVICE_GROWTH, HOST_GROWTH = (
        int(os.environ.get("XLATE_TEST_REPEAT", 10)),
        16 * MIB,
        256 * MIB,
    )

    def samples(self, path, model):
        """Returns [(fraction of the time, device bytes or None, resident bytes)] and the result of
        the run."""
        try:
            nvml = Nvml()
        except OSError:
            nvml = None
        rows = []
        with open(path, "rb") as source, open(os.devnull, "wb") as nowhere:
            running = Running(
                ["-q", "-b", 1, "--max-length", 200, "--report", self.path("report.json")],
                model,
                DEVICE,
                stdin=source,
                stdout=nowhere,
            )
            self.addCleanup(running.kill)
            while running.process.poll() is None:
                try:
                    with open("/proc/%d/statm" % running.process.pid) as file:
                        rows.append(
                            (
                                time.monotonic() - running.begun,
                                nvml and nvml.used(),
                                int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
                            )
                        )
                except (OSError, IndexError):
                    break
                time.sleep(0.05)
            result = running.wait()
        return [(at / result.seconds, device, host) for at, device, host in rows], result

    def test_nothing_grows(self):
        news = os.path.join(reference_test.REFERENCE, "data", "bench", "news.en")
        lines = reference_test.lines_of(news) if os.path.isfile(news) else source_lines() * 100
        model = os.environ.get("XLATE_ENDE_BASE") or EN_DE
        rows, result = self.samples(
            self.path("long.txt", "\n".join(lines * self.REPEAT) + "\n"), model
        )
        self.check(result, 0)
        report = self.load_report(self.path("report.json"), result)
        device, host = (
            [
                max([row[column] or 0 for row in rows if low <= row[0] < high] or [0])
                for low, high in ((0.4, 0.6), (0.6, 0.85))
            ]
            for column in (1, 2)
        )
        program.figure(
            "%d lines in %.0f s: device %.0f then %.0f MiB (of these xlate's own at most %.0f), "
            "host %.0f then %.0f MiB"
            % (
                len(lines) * self.REPEAT,
                result.seconds,
                *(
                    value / MIB
                    for value in (*device, report["memory"]["device_peak_bytes"] or 0, *host)
                ),
            )
        )
        self.assertLessEqual(device[1] - device[0], self.DEVICE_GROWTH, "device memory grows")
        self.assertLessEqual(host[1] - host[0], self.HOST_GROWTH, "host memory grows")


if __name__ == "__main__":
    program.main()
