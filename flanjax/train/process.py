"""What a training process is told before JAX starts: keep memory, keep programs.

keep_freed_memory()  # Before any thread allocates.
keep_compiled_programs()  # Before anything is compiled.
"""

import ctypes
import hashlib
import importlib.util
import os
import platform
import sys
from pathlib import Path

from flanjax.data.fetch import data_dir

# Of glibc's malloc.h: one heap (M_ARENA_MAX), no mapping for each large buffer
# (M_MMAP_MAX), nothing given back (M_TRIM_THRESHOLD; any size would be at most 2 GiB).
_MALLOPT = {-8: 1, -4: 0, -1: -1}


def keep_freed_memory() -> bool:
    """Tells glibc to use freed memory again instead of giving it to the system.

    A training step on a CPU asks for the same large buffers each time: their page
    faults otherwise cost a third of it. Threads that have allocated keep their old
    ways, so call this first. Settings of the user's (GLIBC_TUNABLES, MALLOC_*), other
    systems and machines with a JAX plugin for an accelerator are left alone.

    Returns:
      Whether it was done.
    """
    chosen = any(n == "GLIBC_TUNABLES" or n.startswith("MALLOC_") for n in os.environ)
    plugins = any(map(importlib.util.find_spec, ("libtpu", "jax_plugins")))
    plugins = plugins and os.environ.get("JAX_PLATFORMS") != "cpu"
    if not sys.platform.startswith("linux") or chosen or plugins:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or platform.libc_ver()[0] != "glibc":
        return False
    return all([mallopt(name, value) for name, value in _MALLOPT.items()])


def keep_compiled_programs() -> Path | None:
    """Lets JAX keep what it compiled, so that a second start need not compile.

    In $FLANJAX_CACHE/compiled (~/.cache/flanjax/compiled), one folder for each version
    of JAX and kind of processor: programs for CPUs use what this processor has. JAX's
    own switches come first: JAX_COMPILATION_CACHE_DIR for another folder,
    JAX_ENABLE_COMPILATION_CACHE=0 for none.

    Returns:
      The folder; None where JAX was told otherwise.
    """
    import jax

    if not jax.config.jax_enable_compilation_cache:
        return None
    if jax.config.jax_compilation_cache_dir:
        return Path(jax.config.jax_compilation_cache_dir)
    folder = data_dir() / "compiled" / f"jax-{jax.__version__}-{_processor()}"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def _processor() -> str:
    """Short digest of what programs compiled here may use."""
    facts = platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        lines = info.read_text().splitlines()
        facts += "".join(sorted({x for x in lines if x.startswith(("flags", "Feat"))}))
    return hashlib.sha256(facts.encode()).hexdigest()[:8]
