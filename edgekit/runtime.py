"""`import edgekit.runtime` is `import edgekit_runtime`: the same module, so that its classes are the same classes."""

import sys

import edgekit_runtime

sys.modules[__name__] = edgekit_runtime
