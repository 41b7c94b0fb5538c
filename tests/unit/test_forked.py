"""The processes that tests start by forking are as those that Python starts: these tests would hold for both."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from forked import Forked, run


def test_streams_arguments_environment_and_folder_are_those_given(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv, input(), os.environ, os.getcwd()); print('wrong', file=sys.stderr)"
    done = run(["-c", code, "a", "b c"], input="said", env={"ONLY": "this"}, cwd=tmp_path)
    assert (done.stdout, done.stderr) == (
        f"['-c', 'a', 'b c'] said environ({{'ONLY': 'this'}}) {tmp_path}\n",
        "wrong\n",
    )
    assert done.returncode == 0


def test_nothing_of_ours_is_loaded() -> None:
    code = "import sys; print([name for name in sys.modules if 'praisonaiagents' in name], 'openai' in sys.modules)"
    assert run(["-c", code]).stdout == "[] True\n"


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("raise SystemExit('why')", 1, "why"),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, ""),
        ("import atexit, sys; atexit.register(print, 'the end', file=sys.stderr)", 0, "the end"),
        (
            "import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), 1 / 0)).start()",
            0,
            "ZeroDivision",
        ),
        ("import builtins; builtins.left = open('/dev/null')", 0, "ResourceWarning: unclosed file"),
    ],
)
def test_it_ends_as_the_interpreter_does(code: str, status: int, said: str) -> None:
    done = run(["-W", "default", "-c", code])
    assert (done.returncode, said in done.stderr, bool(done.stderr)) == (status, True, bool(said))


def test_modules_and_files_are_run_as_programs(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import beside, sys; print(__name__, beside.value, sys.argv)")
    (tmp_path / "beside.py").write_text("value = 7")
    assert run([program, "x"]).stdout == f"__main__ 7 ['{program}', 'x']\n"
    assert run(["-m", "program"], cwd=tmp_path).stdout.startswith("__main__ 7 ")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_reach_it(how: signal.Signals) -> None:
    code = "import time; print('begun', flush=True); time.sleep(3600)"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Forked(["-c", code], **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        assert process.poll() is None
        process.send_signal(how)
        assert process.wait(60) == -how


def test_one_that_takes_too_long_is_killed() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run(["-c", "import time; time.sleep(3600)"], timeout=0.1)
