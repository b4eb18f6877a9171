"""Collect daily prices from public web services into a folder, politely and resumably.

Only ``vnquant prices`` comes here. Training reads the folder and never the network, so that the
hash of its bars identifies a run. Wire formats were gathered from public clients; no service
publishes a contract, so every answer is checked before one bar of it is kept.
"""
