"""Tests what a power failure leaves of an unfinished output, with the system calls that strace
shows: what is synced before what, and that --resume goes on from whatever the disk has."""

import ast
import os
import random
import re
import shutil
import signal
import subprocess
import unittest

import program
from program import GREEDY, Case, command, source_lines, text

LONG = os.environ.get("XLATE_LONG")
LINES = source_lines()[: 12 if LONG else 5]
# So many states are tried, drawn at random from those that a run goes through.
STATES = 1000 if LONG else 20
OPTIONS = [*GREEDY, "--batch-tokens", "1", "--scores", "--line-buffered"]
CALLS = "openat,write,pwrite64,ftruncate,lseek,fsync,rename,unlink,close"
# Marks that were synced with the output are in the blocks of the journal behind this place.
SYNCED_MARKS = 1024
STRING = r'"((?:[^"\\]|\\.)*)"'


def setUpModule():
    program.require()
    try:
        subprocess.run(["strace", "-o", "/dev/null", "true"], check=True, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        raise unittest.SkipTest("strace cannot be run")


def read(path):
    with open(path, "rb") as file:
        return file.read()


def bytes_of(escaped):
    return ast.literal_eval('b"%s"' % escaped)


def calls_of(trace):
    """Returns the system calls in the order in which they ended: (name, arguments, result, number
    of calls that had ended when it began)."""
    calls, begun = [], {}
    with open(trace, encoding="ascii") as file:
        for row in file:
            thread, call = row.rstrip("\n").split(maxsplit=1)
            if call.endswith(" <unfinished ...>"):
                begun[thread] = (call[: -len(" <unfinished ...>")], len(calls))
                continue
            begin = len(calls)
            resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", call)
            if resumed:
                call, begin = begun[thread][0] + resumed[1], begun[thread][1]
            parsed = re.match(r"(\w+)\((.*)\)\s+= (-?\d+)", call, re.DOTALL)
            if parsed and int(parsed[3]) >= 0:
                calls.append((parsed[1], parsed[2], int(parsed[3]), begin))
    return calls


class File:
    """A file, as programs see it and as it is on the disk."""

    def __init__(self, content=b""):
        self.content, self.synced = bytearray(content), bytes(content)

    def write(self, data, begin):
        self.content.extend(bytes(max(0, begin - len(self.content))))
        self.content[begin : begin + len(data)] = data


class Disk:
    """Does the calls of a run in a folder. What was not synced is kept apart."""

    def __init__(self, folder):
        self.folder = folder
        self.names = {name: File(read(os.path.join(folder, name))) for name in os.listdir(folder)}
        self.synced_names = dict(self.names)
        self.opened, self.places = {}, {}
        # These are the contents and names after each call.
        self.history = []
        # The calls that concern the folder: (call, name, other name or place in the file).
        self.order = []

    def name(self, path):
        folder, name = os.path.split(bytes_of(path).decode())
        return name if folder == self.folder else None

    def do(self, call, arguments, result, begin):
        handle = re.match(r"\d+", arguments)
        file = self.opened.get(int(handle[0])) if handle else None
        if call == "openat":
            self.open(arguments, result)
        elif call in ("rename", "unlink"):
            names = [self.name(path) for path in re.findall(STRING, arguments)]
            if names[0]:
                moved = self.names.pop(names[0])
                if call == "rename":
                    self.names[names[1]] = moved
                self.order.append((call, names[0], names[1] if call == "rename" else None))
        elif call == "close" and handle:
            self.opened.pop(int(handle[0]), None)
        elif file is not None:
            self.change(call, arguments, result, begin, int(handle[0]), file)
        self.history.append(
            (dict(self.names), {file: bytes(file.content) for file in self.names.values()})
        )

    def open(self, arguments, result):
        path = re.search(STRING, arguments)[1]
        name = self.name(path)
        if bytes_of(path).decode() == self.folder:
            self.opened[result] = self
        elif name:
            if "O_CREAT" in arguments and name not in self.names:
                self.names[name] = File()
            self.opened[result], self.places[result] = self.names[name], 0

    def change(self, call, arguments, result, begin, handle, file):
        name = next((name for name, other in self.names.items() if other is file), "the folder")
        if call == "fsync":
            # Only what was there when the call began is on the disk for certain.
            names, contents = self.history[begin - 1]
            if file is self:
                self.synced_names = names
            else:
                file.synced = contents[file]
            self.order.append((call, name, None))
        elif call == "ftruncate":
            length = int(arguments.split(", ")[1])
            del file.content[length:]
        elif call == "lseek":
            self.places[handle] = result
        else:
            data = bytes_of(re.search(STRING, arguments)[1])[:result]
            place = self.places[handle]
            if call == "pwrite64":
                place = int(arguments.rsplit(", ", 1)[1])
            else:
                self.places[handle] += len(data)
            file.write(data, place)
            self.order.append((call, name, place))

    def states(self):
        """Returns what a power failure may leave now, as the contents of files by name: of what was
        not synced, nothing is left, or the output, or the journal, or both."""
        for kept in ((), (".partial", ".txt"), (".journal",), (".partial", ".txt", ".journal")):
            yield {
                name: bytes(file.content) if kept and name.endswith(kept) else file.synced
                for name, file in self.synced_names.items()
            }
        yield {name: bytes(file.content) for name, file in self.names.items()}


class PowerFailure(Case):
    def setUp(self):
        super().setUp()
        self.outputs = self.path("outputs")
        os.mkdir(self.outputs)
        self.out = os.path.join(self.outputs, "out.txt")
        self.source = self.path("in.txt", text(LINES))
        self.wanted = self.ok(*OPTIONS, "-i", self.source).out

    def traced(self):
        """Runs to the end. Returns the disk, and the distinct states that it went through."""
        trace = self.path("trace")
        arguments = command([*OPTIONS, "-i", self.source, "-o", self.out, "--resume"])
        disk = Disk(self.outputs)
        strace = ["strace", *program.TRACED, "-f", "-s", "1000000", "-o", trace]
        strace += ["-e", "trace=" + CALLS]
        result = program.xlate(
            arguments=strace + arguments,
            env={**os.environ, "XLATE_TEST_SYNC_MILLISECONDS": "5"},
        )
        self.check(result, 0)
        self.assertEqual(read(self.out), self.wanted, result.story())
        states = []
        for call in calls_of(trace):
            disk.do(*call)
            states += [state for state in disk.states() if state not in states]
        # At the end only the removal of the journal is not on the disk.
        self.assertEqual(next(disk.states()).get("out.txt"), self.wanted)
        return disk, states

    def kill_after(self, lines):
        running = self.start(*OPTIONS, "-i", self.source, "-o", self.out)
        partial = self.out + ".partial"
        self.assertTrue(
            running.until(lambda: os.path.exists(partial) and read(partial).count(b"\n") >= lines)
        )
        running.process.send_signal(signal.SIGKILL)
        running.wait(20)

    def goes_on(self, states):
        self.assertGreater(len(states), 10)
        seed = random.randrange(1 << 30)
        for state in random.Random(seed).sample(states, min(STATES, len(states))):
            shutil.rmtree(self.outputs)
            os.mkdir(self.outputs)
            for name, content in state.items():
                with open(os.path.join(self.outputs, name), "wb") as file:
                    file.write(content)
            result = self.ok(*OPTIONS, "-i", self.source, "-o", self.out, "--resume")
            self.assertEqual(
                (read(self.out), os.listdir(self.outputs)),
                (self.wanted, ["out.txt"]),
                "seed %d: %r\n%s" % (seed, state, result.story()),
            )

    def test_a_run_goes_on_from_whatever_the_disk_has(self):
        _, states = self.traced()
        self.goes_on(states)

    def test_a_run_that_went_on_goes_on_from_whatever_the_disk_has(self):
        self.kill_after(2)
        with open(self.out + ".partial", "ab") as partial:
            partial.write(b"half a line")
        _, states = self.traced()
        self.goes_on(states)

    def test_what_is_synced_before_what(self):
        order = self.traced()[0].order
        partial, journal, new = (
            "out.txt" + end for end in (".partial", ".partial.journal", ".partial.journal.new")
        )
        writes = [
            i for i, (call, name, _) in enumerate(order) if (call, name) == ("write", partial)
        ]
        self.assertEqual(len(writes), len(LINES))
        # The journal is on the disk, and has its name there, before the output has any text.
        begin = order[: writes[0]]
        self.follow(
            begin,
            [
                ("pwrite64", new, 0),
                ("fsync", new, None),
                ("rename", new, journal),
                ("fsync", "the folder", None),
            ],
        )
        self.follow(
            order[writes[-1] :],
            [
                ("fsync", partial, None),
                ("rename", partial, "out.txt"),
                ("fsync", "the folder", None),
                ("unlink", journal, None),
            ],
        )
        # The output is synced before the mark that speaks of it, which is synced then.
        marks = [
            i
            for i, (call, name, place) in enumerate(order)
            if (call, name) == ("pwrite64", journal) and place >= SYNCED_MARKS
        ]
        self.assertGreater(len(marks), 0)
        for mark in marks:
            syncs = [(name, i) for i, (call, name, _) in enumerate(order) if call == "fsync"]
            self.assertEqual([name for name, i in syncs if i < mark][-1], partial)
            self.assertEqual([name for name, i in syncs if i > mark][0], journal)

    def follow(self, order, wanted):
        """Checks that these calls come in this order, perhaps with others between them."""
        rest = iter(order)
        for call in wanted:
            self.assertTrue(any(call == other for other in rest), "%s\n%s" % (call, order))


if __name__ == "__main__":
    program.main()
