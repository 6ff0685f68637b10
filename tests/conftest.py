"""Eight CPU devices, so that tests can spread a run over several, also where JAX could use a GPU;
and what one test compiled, the next, or a process it starts, need not compile again.
"""

import os
import tempfile

_cache = tempfile.TemporaryDirectory(prefix="resnet_jax_tests_")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax  # noqa: E402

from resnet_jax.runtime import setup  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
setup.prepare()  # As every command does: a run in this process and one in another agree.
