"""Drives the completion of interactive shells in a pseudo-terminal."""

import os
import pty
import re
import select
import shutil
import signal
import time

# The completions of a shell are typed with these keys of Emacs, which all shells know.
TAB, START_OF_LINE, END_OF_LINE = "\t", "\x01", "\x05"
TIMEOUT = 60
# These are the escape sequences by which a shell moves the cursor or changes colours.
ESCAPES = re.compile(r"\x1b(?:\[[0-9;?>]*[a-zA-Z]|[=>]|\][^\x07]*\x07)|[\x07\r]")

SETUP = {
    "bash": (
        ["bash", "--noprofile", "--norc", "-i"],
        "bind 'set show-all-if-ambiguous on'; bind 'set completion-query-items 0';"
        " bind 'set page-completions off'; bind 'set enable-bracketed-paste off'; source %s",
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        "bindkey -e; unsetopt beep list_ambiguous; LISTMAX=0; fpath=(%s $fpath);"
        " autoload -U compinit; compinit -u -D",
    ),
}


class Shell:
    """An interactive shell that has loaded a completion: for bash the file, for zsh the folder."""

    def __init__(self, name, completion, folder):
        command, setup = SETUP[name]
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            os.chdir(folder)
            environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "PS1": "$ ", "HOME": folder}
            os.execve(shutil.which(command[0]), command, environment | {"COLUMNS": "200"})
        self.run(setup % completion)

    def run(self, line):
        """Types the line with a command behind it, and returns what the terminal showed until that
        command had run."""
        os.write(self.terminal, (line + "; echo END$((6 * 7))\n").encode())
        return self.read_until("END42")

    def complete(self, line):
        """Types the beginning of a command and a tab. Returns what the shell offers, and the words
        of the command afterwards."""
        keys = line + TAB + START_OF_LINE + "echo 'NOW'" + END_OF_LINE + "; echo END$((6 * 7))\n"
        os.write(self.terminal, keys.replace("NOW'", "NOW' ").encode())
        shown = self.read_until("END42")
        offered, _, words = shown.rpartition("\nNOW ")
        return offered, words.split("\n")[0].strip()

    def read_until(self, mark):
        data, deadline = b"", time.monotonic() + TIMEOUT
        while mark.encode() not in data:
            ready, _, _ = select.select([self.terminal], [], [], deadline - time.monotonic())
            if not ready:
                raise AssertionError("the shell shows %r" % data)
            data += os.read(self.terminal, 65536)
        return ESCAPES.sub("", data.decode("utf-8", "replace"))

    def close(self):
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self.terminal)
