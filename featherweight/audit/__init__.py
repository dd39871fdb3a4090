"""What compressing cost: bounds on the drop, and the certificate made of them.

Everything here sees two callables' outputs and data; it can't tell how the artefact was made. ``verify`` is the way
in, ``measure`` finds the bound that suits a metric (``bounds`` and ``exact`` for means, ``resampling`` for figures of a
set), ``groups`` and ``churn`` say who pays, ``statement`` puts it into words.
"""
