"""`python -m kdas_edge`, and so `torchrun … -m kdas_edge train …`."""

import os
import sys

# `-m` puts the working folder first, where a bundle that is verified may hold a `numpy.py`; this
# package was found already
if sys.path and os.path.realpath(sys.path[0] or ".") == os.path.realpath(os.curdir):
    del sys.path[0]

from kdas_edge.cli import main

main()
