"""Baselines and our own figures side by side, in one run, on one machine.

Rules that every suite keeps: the generator is a process of its own and its CPU is stated; what can be
encoded is encoded before the clock starts; a rate counts answers, not requests; a figure whose books
disagree is no figure.
"""
