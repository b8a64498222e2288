"""`python -m kdas_edge`, and so `torchrun … -m kdas_edge train …`."""

from kdas_edge.cli import main

main()
