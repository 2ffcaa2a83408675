"""Compares the outputs of lines of ids in different runs, for tests that the output of a line
depends on the line alone. The bytes must be the same in every type, on a GPU and on the CPU."""

import program
from program import Case

FORMATS = ["--input-format", "ids", "--output-format", "ids", "--scores"]


class InvarianceCase(Case):
    device, precision = program.DEVICE, program.PRECISION

    @property
    def is_on_gpu(self):
        return self.device != "cpu"

    def rows_of(self, model, lines, *options):
        """Returns (score, ids) of each line as printed, and the report. `lines` has bytes."""
        where = ["--device", self.device, "--precision", self.precision]
        if self.is_on_gpu:
            where += ["--gpu-memory", "8GiB"]
        result, report = self.report(
            *FORMATS,
            *where,
            *options,
            input=b"".join(line + b"\n" for line in lines),
            lines=len(lines),
            model=model,
            device=None,
        )
        return [line.split(" ||| ", 1) for line in result.lines], report

    def check_same(self, wanted, got, what):
        wrong = [i + 1 for i, (a, b) in enumerate(zip(wanted, got)) if a != b]
        self.assertEqual(wrong, [], "%s: these lines have other bytes" % what)

    def check_order(self, wanted, order, rows, what):
        """Compares the rows of lines in another order. `order` has the line of each row."""
        got = [None] * len(wanted)
        for i, row in zip(order, rows, strict=True):
            got[i] = row
        self.check_same(wanted, got, what)
