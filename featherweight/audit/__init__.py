"""What compressing cost: bounds on the drop, and the certificate made of them.

Everything here sees two callables' scores and data; it can't tell how the artefact was made.
"""
