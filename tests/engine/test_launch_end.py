"""How a rank's process ends: handlers and threads come to their end, the interpreter is not taken apart."""

import subprocess
import sys

PROGRAM = """
import atexit, os, sys, threading, time
from hookline.cli.train import run_to_end
from hookline.engine.launch_end import note_rank_here

def at_once(code, end=os._exit):
    print("at once", flush=True)
    end(code)

os._exit = at_once
atexit.register(print, "handler")
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()

def program():
    if "rank" in sys.argv:
        note_rank_here()
    if "leave" in sys.argv:
        raise SystemExit(75)
    return 3

run_to_end(program)
"""


def ends(*arguments):
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.split("\n")[:-1]


def test_a_rank_ends_by_its_code_with_threads_and_handlers_done():
    assert ends("rank") == (3, ["thread", "handler", "at once"])
    assert ends("rank", "leave") == (75, ["thread", "handler", "at once"])


def test_another_process_ends_as_any():
    assert ends() == (3, ["thread", "handler"])
    assert ends("leave") == (75, ["thread", "handler"])
