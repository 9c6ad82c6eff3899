"""Province-wide load, replayed against a real core: scenes of the traffic model, open loop, checked in the books.

Rules that every scene keeps: arrivals follow the clock and never the answers; latency counts from the intended start;
a decline is an answer; the generator is a process of its own; a figure whose books disagree is no figure.
"""
