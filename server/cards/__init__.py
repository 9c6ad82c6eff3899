"""Cards: holders, identifiers, the one row of state that every credential shares, and its life.

Physical and electronic card are one row, so a loss report stops chip, code, name and number and money alike.
"""
