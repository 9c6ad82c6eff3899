"""Business dates that leave the database as files, proved before they go, and come back.

Never drops a partition whose file was not read back and found equal to it, and never imports pyarrow before that is
needed.
"""
