"""Content: which tasks exist, in which words, and how they are mixed.

flanjax itself never imports this package; a configuration names the modules that a
run needs (`PrepareConfig.mixture_modules = ("mixtures.starter",)`).
"""
