"""Rules that decisions follow, as data: limits by channel, wallets, merchants, terminals; changed by two persons."""
