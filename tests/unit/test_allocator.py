"""Memory kept between passes: asked for by our own processes only, bounded, and the same numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import convoscope as cs
from convoscope import allocator

SOURCE = Path(__file__).resolve().parents[2] / "src"
glibc = pytest.mark.skipif(allocator._glibc() is None, reason="only glibc can be tuned")
_OURS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")


def child(code: str, **environment: str) -> str:
    """What a new process prints."""
    clean = {name: value for name, value in os.environ.items() if name not in _OURS}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**clean, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


#: passes as SqueezeNet's first layers make them: what is taken and given back is large
PASSES = """
import resource, torch
torch.set_num_threads(1)
torch.manual_seed(0)
net = torch.nn.Sequential(*[torch.nn.Conv2d(c, 16, 3, padding=1) for c in (3, 16, 16, 16)])
x = torch.rand(8, 3, 160, 160)
def step():
    with torch.no_grad():
        return net(x).double().sum().item()
first = step()
"""


@glibc
def test_passes_take_far_fewer_pages_and_give_the_same_numbers():
    told = PASSES + (
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "sums = {step() for _ in range(8)}\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, *sums)"
    )
    # how many pages one fault brings is the kernel's affair and differs from run to run: of three each
    plain = [child(told).split() for _ in range(3)]
    tuned = [child("import convoscope\nassert convoscope.tune_allocator()\n" + told).split() for _ in range(3)]
    assert min(int(one[0]) for one in tuned) < max(int(one[0]) for one in plain) / 4
    sums = {tuple(one[1:]) for one in plain + tuned}
    assert len(sums) == 1
    assert len(sums.pop()) == 1


@glibc
def test_memory_stays_bounded_over_a_thousand_calls_of_changing_sizes():
    """Also from threads that come and go, as the page's server has them."""
    code = (
        "import convoscope\nassert convoscope.tune_allocator()\n"
        "import resource, threading, torch\n"
        "torch.set_num_threads(1)\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "sizes = [2**18 + 16384 * ((7 * k) % 61) for k in range(61)]\n"
        "def call(k):\n"
        "    a = torch.ones(sizes[k % 61]); b = a + 1; c = torch.cat([a, b]); return float(c[-1])\n"
        "def round_(n):\n"
        "    for k in range(0, n, 5):\n"
        "        threads = [threading.Thread(target=call, args=(k + j,)) for j in range(4)]\n"
        "        [t.start() for t in threads]; call(k + 4); [t.join() for t in threads]\n"
        "round_(305); first = peak(); round_(1000); print(first, peak())"
    )
    first, after = map(int, child(code).split())
    assert after <= 1.1 * first


@glibc
def test_what_someone_chose_by_the_environment_stays():
    code = "import convoscope as c, convoscope.allocator as a\nprint(c.tune_allocator(), a.in_force())"
    assert child(code, MALLOC_TRIM_THRESHOLD_="131072") == "False as MALLOC_TRIM_THRESHOLD_ says"
    assert child(code, GLIBC_TUNABLES="glibc.malloc.arena_max=2") == "False as GLIBC_TUNABLES says"
    assert child(code) == "True memory is kept between passes"


def test_only_our_own_processes_tune():
    """Neither importing the library nor explaining does so; the command and Ray's workers do, at their start."""
    code = "import convoscope.explanation, convoscope.parallel, convoscope.allocator as a\nprint(a._in_force)"
    assert child(code) == ""
    command = (
        "import convoscope.cli as c, convoscope.allocator as a, sys\n"
        "c.run = lambda: print(bool(a._in_force), 'torch' in sys.modules)\nc.main()"
    )
    worker = (
        "import convoscope.parallel as p, convoscope.allocator as a\n"
        "p.Worker(str, str, '', 1)\nprint(bool(a._in_force))"
    )
    tunable = str(allocator._glibc() is not None)
    assert child(command) == f"{tunable} False"
    assert child(worker) == tunable


def test_elsewhere_it_does_nothing(monkeypatch):
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    monkeypatch.setattr(allocator, "_in_force", "")
    for name in _OURS:
        monkeypatch.delenv(name, raising=False)
    assert cs.tune_allocator() is False
    assert "only glibc" in allocator.in_force()


def test_the_doctor_says_what_is_in_force(cli):
    answer = cli("doctor", "--json")
    assert answer.json["device"]["memory"] == allocator.in_force()
