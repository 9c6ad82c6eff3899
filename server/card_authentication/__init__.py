"""Card authentication: is this the chip it claims to be?"""
